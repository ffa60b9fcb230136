"""Calls an ONNX graph: one method, "predict", with the graph's inputs and outputs by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.wire.errors import InvalidInput

# onnxruntime's names of element types, and the dtypes of inputs that match them.
DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_INVALID_ARGUMENT = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument


class OnnxModel(LoadedModel):
    """An onnxruntime session, which several threads may run at a time."""

    def __init__(self, session: Any, memory_bytes: int, device: str) -> None:
        self._session = session
        self._inputs = {item.name: item.type for item in session.get_inputs()}
        self._outputs = [item.name for item in session.get_outputs()]
        self.memory_bytes = memory_bytes
        self.device = device

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Runs the graph. Raises InvalidInput for another method, other inputs or shapes."""
        if method != "predict":
            raise InvalidInput(
                f"an ONNX model has the method 'predict', not '{method[:64]}'", method=method[:64]
            )
        if set(inputs) != set(self._inputs):
            raise InvalidInput(
                f"the model takes the inputs {', '.join(self._inputs)}; give each of them once"
            )
        feeds = {name: self._fit(name, array) for name, array in inputs.items()}
        try:
            answers = self._session.run(self._outputs, feeds)
        except _INVALID_ARGUMENT as exc:
            raise InvalidInput("the model does not take inputs of these shapes") from exc
        return dict(zip(self._outputs, answers, strict=True))

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _fit(self, name: str, array: Array) -> Array:
        kind = self._inputs[name]
        if array.dtype != DTYPES[kind]:
            raise InvalidInput(f"input '{name}' must be {kind}, got {array.dtype}", tensor=name)
        if kind == "tensor(string)":
            return _text(name, array)
        return array


def _text(name: str, array: Array) -> Array:
    """Returns the elements as `str`, because ONNX strings are UTF-8.

    Raises InvalidInput for other bytes, which would come back changed.
    """
    try:
        items = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidInput(
            f"input '{name}' takes text; an element of it is not UTF-8", tensor=name
        ) from exc
    return np.array(items, dtype=object).reshape(array.shape)
