"""Decides whether requests of a method may share a call, their rows end to end: by a declaration,
or by a probe. Never by a guess. See docs/decisions/0014 and 0017.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np

from services.runtime.formats.port import Array, Arrays, Signature

# Methods of which scikit-learn documents one output row per input row, declared or not.
ROWWISE_METHODS = frozenset({"predict", "predict_proba", "predict_log_proba", "decision_function"})
ESTIMATOR_FORMATS = frozenset({"skops", "pickle"})
# Formats of graphs: the first dimension may be a sequence, so a declared -1 allows a probe only.
PROBED_FORMATS = frozenset({"onnx", "torch_export", "torch_safetensors"})
# The format option by which a version's owner declares whether rows are independent; its values.
OPTION = "batching"
ROWS = "rows"
OFF = "off"
# Probes that ended without a result because the model raised, before the method is never batched.
_PROBES = 3
# Largest difference between the outputs of two kernels, relative to the largest value, by bytes of
# the floating-point type. See docs/decisions/0017.
_TOLERANCE = {2: 1e-2, 4: 1e-3, 8: 1e-7}


class Batchability(enum.Enum):
    """The answer to whether requests of a method may share a call."""

    NEVER = enum.auto()
    # Only after a probe has shown that a row's output does not depend on the rest of the batch.
    PROBE = enum.auto()
    ALWAYS = enum.auto()


def declared_batchability(
    model_format: str, method: str, signature: Signature, mode: str = ""
) -> Batchability:
    """Returns what is known of a method before its first call.

    `mode` is the value of the format option "batching". "off" forbids shared calls. "rows" declares
    that each output row depends on its own input row alone, as scikit-learn documents for its
    estimators.
    """
    if method == "score" or mode == OFF:
        return Batchability.NEVER
    promised = mode == ROWS
    if signature.inputs and signature.outputs:
        specs = [*signature.inputs, *signature.outputs]
        if not all(len(spec.shape) > 0 and spec.shape[0] == -1 for spec in specs):
            return Batchability.NEVER
        if model_format in PROBED_FORMATS and not promised:
            return Batchability.PROBE
        promised = promised or model_format in ESTIMATOR_FORMATS
    else:
        promised = promised or (model_format in ESTIMATOR_FORMATS and method in ROWWISE_METHODS)
    return Batchability.ALWAYS if promised else Batchability.NEVER


class Method:
    """A method of a version: its signature and its batchability, which a probe may settle."""

    __slots__ = ("_failed_probes", "batchability", "name", "rows_promised", "signature")

    def __init__(self, name: str, signature: Signature, known: Batchability) -> None:
        self.name = name
        self.signature = signature
        self.batchability = known
        # Whether an output with another number of rows than the input is the model's failure.
        self.rows_promised = known is Batchability.ALWAYS
        self._failed_probes = 0

    def settle(self, *, independent: bool) -> None:
        """Records the result of a probe: whether rows are independent of the rest of the batch."""
        self.batchability = Batchability.ALWAYS if independent else Batchability.NEVER

    def probe_failed(self) -> None:
        """Records a probe during which the model raised; the third one settles NEVER."""
        self._failed_probes += 1
        if self._failed_probes >= _PROBES:
            self.batchability = Batchability.NEVER


def rows_are_independent(
    call: Callable[[Arrays], Arrays], sample: Arrays, alone: Arrays, other: Arrays
) -> bool:
    """Returns whether the rows of `sample` get the output `alone` before and after other rows too.

    Calls the model once, with the rows sample + other + sample. A model that carries a state along
    the first dimension in either direction, averages over it or counts positions answers one of the
    two places differently. Raises what the model raises.
    """
    batched = call(
        {name: np.concatenate([array, other[name], array]) for name, array in sample.items()}
    )
    rows = len(next(iter(sample.values())))
    total = 2 * rows + len(next(iter(other.values())))
    if alone.keys() != batched.keys():
        return False
    return all(
        array.ndim > 0
        and batched[name].ndim > 0
        and len(array) == rows
        and len(batched[name]) == total
        and nearly_equal(array, batched[name][:rows])
        and nearly_equal(array, batched[name][total - rows :])
        for name, array in alone.items()
    )


def nearly_equal(one: Array, other: Array) -> bool:
    """Returns whether two arrays are equal, floats up to what another summation order changes."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    tolerance = _TOLERANCE.get(one.dtype.itemsize, 1e-7)
    finite = np.abs(one[np.isfinite(one)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def differing_row(sample: Arrays) -> dict[str, Array]:
    """Returns one row per input that no row of the sample equals: of zeros, or else of ones.

    Nearly every model takes zeros.
    """
    return {name: _differing_row(array) for name, array in sample.items()}


def _differing_row(array: Array) -> Array:
    shape = (1, *array.shape[1:])
    if array.dtype.kind == "O":
        return np.full(shape, b"1" if b"0" in array.ravel().tolist() else b"0", dtype=object)
    has_zeros = any(not row.any() for row in array)
    return np.full(shape, int(has_zeros), dtype=array.dtype)
