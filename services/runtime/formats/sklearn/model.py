"""Calls estimators of scikit-learn's kind: turns tensors into what they were fitted with, and their
answers into arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.runtime.formats.port import Array, Arrays, LoadedModel, Signature, in_order
from stellwerk.wire.errors import InvalidInput

METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "transform",
    "decision_function",
    "score",
)
# The input that holds the target of `score`.
TARGET = "y"


class EstimatorModel(LoadedModel):
    """A fitted estimator in memory."""

    def __init__(self, estimator: Any, signatures: dict[str, Signature], memory_bytes: int) -> None:
        self._estimator = estimator
        self._signatures = signatures
        self.memory_bytes = memory_bytes

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls one of METHODS and keeps the shape of its answer: N×C stays N×C.

        Raises InvalidInput for a method that the estimator lacks, or for columns that do not fit.
        """
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
        """Frees the estimator."""
        self._estimator = None


def split_target(inputs: Arrays, signature: Signature) -> tuple[Arrays, Array]:
    """Returns the features and the target for `score`.

    The target is the input "y", or else the last one of the signature. Raises InvalidInput for a
    call without features or without a target.
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
    """Returns the argument for the estimator: an array, or a DataFrame where columns have names.

    `fitted_names` are the columns that the estimator was fitted with, None if they had no names.
    Raises InvalidInput for inputs that do not fit the signature.
    """
    specs = [spec for spec in signature.inputs if spec.name in inputs]
    if signature.inputs and len(specs) != len(inputs):
        in_order(inputs, signature)  # raises the error that says which input is wrong
    given = [inputs[spec.name] for spec in specs] if specs else inputs.values()
    arrays = [_as_text(array) for array in given]
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
    """Returns the answer by output name: the declared name if there is one, else the method's.

    A mapping keeps its own names; a list, one array per target, gets the names method_0, method_1…
    """
    if isinstance(answer, Mapping):
        return {str(name): np.atleast_1d(_as_array(part)) for name, part in answer.items()}
    if isinstance(answer, list):
        # Multi-output classifiers answer one array per target.
        return {f"{method}_{index}": _as_array(part) for index, part in enumerate(answer)}
    declared = signature.outputs[0] if len(signature.outputs) == 1 else None
    array = _as_array(answer)
    # A score is one number; it travels as a vector of one unless its owner declared a scalar.
    if array.ndim == 0 and (declared is None or len(declared.shape) == 1):
        array = array.reshape(1)
    return {declared.name if declared is not None and declared.name else method: array}


def _as_array(answer: Any) -> Array:
    if hasattr(answer, "toarray"):
        # Sparse matrices of scipy.
        answer = answer.toarray()
    elif hasattr(answer, "to_numpy"):
        # Frames and series of pandas.
        answer = answer.to_numpy()
    return np.asarray(answer)


def _as_text(array: Array) -> Array:
    """Returns byte strings as `str`, the type that text columns and labels were fitted with.

    Raises InvalidInput for bytes that are not UTF-8.
    """
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
