"""Calling scikit-learn style estimators: tensors to what they were fitted with, and their answers
back to arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.runtime.formats.port import Array, Arrays, OneAnswer, Signature, in_order
from stellwerk.wire.errors import InvalidInput

METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "transform",
    "decision_function",
    "score",
)
TARGET = "y"


class EstimatorModel(OneAnswer):
    """A fitted estimator in memory."""

    def __init__(self, estimator: Any, signatures: dict[str, Signature], memory_bytes: int) -> None:
        self._estimator = estimator
        self._signatures = signatures
        self.memory_bytes = memory_bytes
        self.device = "cpu"

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls one of METHODS. Shapes are kept: N×C answers stay N×C."""
        if method not in METHODS or not hasattr(self._estimator, method):
            known = [name for name in METHODS if hasattr(self._estimator, name)]
            raise InvalidInput(
                f"the model has no method '{method[:64]}'; it has {', '.join(known) or 'none'}",
                method=method[:64],
            )
        signature = self._signatures.get(method, Signature())
        fitted_names = getattr(self._estimator, "feature_names_in_", None)
        if method == "score":
            features, target = split_target(inputs, signature)
            answer = self._estimator.score(to_features(features, signature, fitted_names), target)
        else:
            answer = getattr(self._estimator, method)(to_features(inputs, signature, fitted_names))
        return to_outputs(method, answer, signature)

    def close(self) -> None:
        self._estimator = None


def split_target(inputs: Arrays, signature: Signature) -> tuple[Arrays, Array]:
    """The features and the target that `score` compares with: the input named "y", else the
    signature's last.
    """
    names = [spec.name for spec in signature.inputs] or list(inputs)
    target = TARGET if TARGET in names else names[-1] if names else TARGET
    if len(inputs) < 2 or target not in inputs:
        raise InvalidInput(
            "score takes the features and the target, such as the inputs X and y", tensor=target
        )
    values = _as_text(inputs[target])
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return {name: array for name, array in inputs.items() if name != target}, values


def to_features(inputs: Arrays, signature: Signature, fitted_names: Sequence[str] | None) -> Any:
    """What the estimator takes: one array as it is, or a DataFrame where columns have names of
    their own.
    """
    specs = tuple(spec for spec in signature.inputs if spec.name in inputs)
    if signature.inputs and len(specs) != len(inputs):
        in_order(inputs, signature)  # says what is wrong
    arrays = [_as_text(array) for array in in_order(inputs, Signature(specs))]
    if not arrays:
        raise InvalidInput("the call has no input")
    if len(arrays) == 1:
        columns = list(specs[0].columns) if specs else []
        if not columns and fitted_names is not None and arrays[0].ndim == 2:
            columns = [str(name) for name in fitted_names]
        if columns and fitted_names is not None and arrays[0].ndim == 2:
            return _frame(_split_columns(arrays[0], columns))
        return arrays[0]
    names = [spec.name for spec in specs] if specs else list(inputs)
    return _frame({name: _column(name, array) for name, array in zip(names, arrays, strict=True)})


def to_outputs(method: str, answer: Any, signature: Signature) -> dict[str, Array]:
    """The answer by output name: the method's name, or the declared one where exactly one is
    declared.

    A mapping has names of its own.
    """
    if isinstance(answer, Mapping):
        return {str(name): np.atleast_1d(_as_array(part)) for name, part in answer.items()}
    if isinstance(answer, list):  # one array per target of a multi-output classifier
        return {f"{method}_{index}": _as_array(part) for index, part in enumerate(answer)}
    declared = signature.outputs[0] if len(signature.outputs) == 1 else None
    array = _as_array(answer)
    # A score is one number; it travels as a vector of one unless its owner declared a scalar.
    if array.ndim == 0 and (declared is None or len(declared.shape) == 1):
        array = array.reshape(1)
    return {declared.name if declared is not None and declared.name else method: array}


def _as_array(answer: Any) -> Array:
    if hasattr(answer, "toarray"):  # scipy's sparse matrices
        answer = answer.toarray()
    elif hasattr(answer, "to_numpy"):  # pandas
        answer = answer.to_numpy()
    return np.asarray(answer)


def _as_text(array: Array) -> Array:
    """Byte strings as text, which is what text columns and labels were fitted with."""
    if array.dtype.kind != "O":
        return array
    try:
        decoded = [item.decode() if isinstance(item, bytes) else item for item in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidInput("a BYTES input of this model must be UTF-8 text") from exc
    result = np.empty(len(decoded), dtype=object)
    result[:] = decoded
    return result.reshape(array.shape)


def _column(name: str, array: Array) -> Array:
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return array.reshape(-1)
    raise InvalidInput(
        f"input '{name}' is one column; its shape must be [n] or [n, 1]", tensor=name
    )


def _split_columns(array: Array, columns: list[str]) -> dict[str, Array]:
    if array.shape[1] != len(columns):
        raise InvalidInput(
            f"the model takes {len(columns)} columns, got {array.shape[1]}",
            expected=len(columns),
            got=int(array.shape[1]),
        )
    return {name: array[:, index] for index, name in enumerate(columns)}


def _frame(columns: dict[str, Array]) -> Any:
    try:
        import pandas as pd
    except ImportError as exc:
        raise InvalidInput(
            "the model takes named columns; this runtime has no pandas to give it some"
        ) from exc
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput("all columns must have the same number of rows")
    return pd.DataFrame(columns)
