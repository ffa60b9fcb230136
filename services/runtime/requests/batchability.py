"""Whose calls may be joined along the first dimension: a promise, or what a probe has shown. Never
a guess.

See docs/decisions/0017.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np

from services.runtime.formats.port import Array, Arrays, Signature

# What scikit-learn's own methods promise, declared or not: one row of answer for each row of input.
ROWWISE_METHODS = frozenset({"predict", "predict_proba", "predict_log_proba", "decision_function"})
ESTIMATOR_FORMATS = frozenset({"skops", "pickle"})
# Graphs: their first dimension may be a sequence, so a declared -1 is worth a probe and no promise.
PROBED_FORMATS = frozenset({"onnx", "torch_export", "torch_safetensors"})
# The format option by which a model's owner says whether its rows may be joined with others', and
# its values.
OPTION, ROWS, OFF = "batching", "rows", "off"
# Probes that showed nothing, because the model raised, before a method is left alone for good.
_ATTEMPTS = 3
# How far the answers of two kernels may differ, relative to the largest value, by bytes of a
# floating-point number.
_TOLERANCE = {2: 1e-2, 4: 1e-3, 8: 1e-7}


class Joining(enum.Enum):
    """Whether calls of a method may be joined."""

    NEVER = enum.auto()
    # After a probe has shown that it makes no difference.
    PROBE = enum.auto()
    ALWAYS = enum.auto()


def joining(model_format: str, method: str, signature: Signature, mode: str = "") -> Joining:
    """What is known beforehand of a version's method. `mode` is the format option's value.

    scikit-learn's estimators promise one row of answer for each row of input, each depending on its
    own row alone; the owner of another model may promise it too, by the option "rows". "off"
    forbids it for all.
    """
    if method == "score" or mode == OFF:
        return Joining.NEVER
    promised = mode == ROWS
    if signature.inputs and signature.outputs:
        specs = [*signature.inputs, *signature.outputs]
        if not all(len(spec.shape) > 0 and spec.shape[0] == -1 for spec in specs):
            return Joining.NEVER
        if model_format in PROBED_FORMATS and not promised:
            return Joining.PROBE
        promised = promised or model_format in ESTIMATOR_FORMATS
    else:
        promised = promised or (model_format in ESTIMATOR_FORMATS and method in ROWWISE_METHODS)
    return Joining.ALWAYS if promised else Joining.NEVER


class Method:
    """One method of a version: what was declared, and whether its calls may be joined, which a
    probe may settle.
    """

    __slots__ = ("_attempts", "joining", "name", "promised", "signature")

    def __init__(self, name: str, signature: Signature, known: Joining) -> None:
        self.name = name
        self.signature = signature
        self.joining = known
        # Whether another number of rows in the answer is the model's failure.
        self.promised = known is Joining.ALWAYS
        self._attempts = 0

    def shown(self, alike: bool) -> None:
        """A probe compared rows of a joined call with the same rows alone."""
        self.joining = Joining.ALWAYS if alike else Joining.NEVER

    def not_shown(self) -> None:
        """A probe ended without a result."""
        self._attempts += 1
        if self._attempts >= _ATTEMPTS:
            self.joining = Joining.NEVER


def bears_company(
    call: Callable[[Arrays], Arrays], sample: Arrays, alone: Arrays, other: Arrays
) -> bool:
    """Whether the rows of `sample`, which got the answer `alone`, get the same before and after
    rows that differ.

    One call. A model that carries a state along the first dimension, forwards or backwards, answers
    one of the two places differently; so does one that takes a mean over it, or counts positions.
    Raises what the model raises.
    """
    joined = call(
        {name: np.concatenate([array, other[name], array]) for name, array in sample.items()}
    )
    rows = len(next(iter(sample.values())))
    total = 2 * rows + len(next(iter(other.values())))
    if alone.keys() != joined.keys():
        return False
    return all(
        array.ndim > 0
        and joined[name].ndim > 0
        and len(array) == rows
        and len(joined[name]) == total
        and same(array, joined[name][:rows])
        and same(array, joined[name][total - rows :])
        for name, array in alone.items()
    )


def same(one: Array, other: Array) -> bool:
    """Whether two answers are equal, floating-point numbers up to what another order of summation
    may change.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    tolerance = _TOLERANCE.get(one.dtype.itemsize, 1e-7)
    finite = np.abs(one[np.isfinite(one)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def unlike(sample: Arrays) -> dict[str, Array]:
    """One row that differs from all of the sample's: zeros, which nearly every model takes, or else
    ones.
    """
    return {name: _unlike(array) for name, array in sample.items()}


def _unlike(array: Array) -> Array:
    shape = (1, *array.shape[1:])
    if array.dtype.kind == "O":
        return np.full(shape, b"1" if b"0" in array.ravel().tolist() else b"0", dtype=object)
    zeros = any(not row.any() for row in array)
    return np.full(shape, int(zeros), dtype=array.dtype)
