"""ONNX models on onnxruntime: one method, "predict"; tensors in, tensors out; nothing read outside
of the artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from services.runtime.formats.onnx import guard as onnx_guard
from services.runtime.formats.port import Array, Arrays, OneAnswer
from stellwerk.wire.errors import Corrupt, InvalidInput, RequirementUnmet

# onnxruntime's names of element types, and the numpy types that tensors of ours arrive with.
_DTYPES: dict[str, type[np.generic]] = {
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
# Errors of this severity only: onnxruntime writes to stderr past our logs.
_LOG_ERRORS = 3


class OnnxModel(OneAnswer):
    """A session. onnxruntime allows concurrent `run`."""

    def __init__(self, session: Any, memory_bytes: int, device: str) -> None:
        self._session = session
        self._inputs = {item.name: item.type for item in session.get_inputs()}
        self._outputs = [item.name for item in session.get_outputs()]
        self.memory_bytes = memory_bytes
        self.device = device

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Runs the graph. Output names are the graph's."""
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

    def _fit(self, name: str, array: Array) -> Array:
        kind = self._inputs[name]
        wanted = _DTYPES[kind]
        if array.dtype != wanted:
            raise InvalidInput(f"input '{name}' must be {kind}, got {array.dtype}", tensor=name)
        if kind == "tensor(string)":
            return _text(name, array)
        return array

    def close(self) -> None:
        self._session = None


def _text(name: str, array: Array) -> Array:
    """The elements as str: ONNX strings are UTF-8, and what is not must not come back as something
    else.
    """
    try:
        items = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidInput(
            f"input '{name}' takes text; an element of it is not UTF-8", tensor=name
        ) from exc
    return np.array(items, dtype=object).reshape(array.shape)


def load(path: Path, device: str, threads: int) -> OnnxModel:
    """Builds a session, which may use so many threads per call. Raises UnsafeFormat for data in
    other files, Corrupt, RequirementUnmet, InvalidInput.
    """
    providers, placed = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    # Its own format, which it would recognise by the first bytes, is one that the guard does not
    # read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    onnx_guard.check(path)
    try:
        # From the path: of a model given as bytes, a session keeps those for life, next to the
        # weights made of them.
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=providers)
    except _BROKEN as exc:
        raise Corrupt(
            "onnxruntime cannot load the artifact; store the model again as ONNX"
        ) from exc
    _check_values(session)
    return OnnxModel(session, path.stat().st_size, placed)


def _providers(device: str) -> tuple[list[Any], str]:
    wants_cuda = device.startswith("cuda")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wants_cuda and not has_cuda:
        raise RequirementUnmet(
            "this runtime's onnxruntime has no CUDA; use a runtime with onnxruntime-gpu"
        )
    if has_cuda and (wants_cuda or device == "auto"):
        index = int(device.partition(":")[2] or 0)
        return [
            ("CUDAExecutionProvider", {"device_id": index}),
            "CPUExecutionProvider",
        ], f"cuda:{index}"
    return ["CPUExecutionProvider"], "cpu"


_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_INVALID_ARGUMENT = (_STATE.InvalidArgument,)
_BROKEN = (
    _STATE.InvalidProtobuf,
    _STATE.InvalidGraph,
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.NotImplemented,
)


def _check_values(session: Any) -> None:
    for item in session.get_inputs():
        if item.type not in _DTYPES:
            raise InvalidInput(
                f"the ONNX input '{item.name}' is a {item.type}; only tensors can be sent"
            )
    for item in session.get_outputs():
        if not item.type.startswith("tensor("):
            raise InvalidInput(
                f"the ONNX output '{item.name}' is a {item.type}, not a tensor; "
                "export with options={'zipmap': False} to get plain probabilities"
            )
