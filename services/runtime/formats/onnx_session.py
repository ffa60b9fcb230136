"""ONNX models on onnxruntime: one method, "predict"; tensors in, tensors out; nothing read outside of the artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from services.runtime.formats.port import Array, Arrays
from services.wire.errors import Corrupt, InvalidInput, RequirementUnmet, UnsafeFormat

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


class OnnxModel:
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
            raise InvalidInput(f"an ONNX model has the method 'predict', not '{method[:64]}'", method=method[:64])
        if set(inputs) != set(self._inputs):
            raise InvalidInput(f"the model takes the inputs {', '.join(self._inputs)}; give each of them once")
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
            text = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.flat]
            return np.array(text, dtype=object).reshape(array.shape)
        return array

    def close(self) -> None:
        self._session = None


def load(path: Path, device: str, threads: int) -> OnnxModel:
    """Builds a session from the artifact's bytes alone, which may use so many threads per call."""
    providers, placed = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    data = path.read_bytes()
    _refuse_external_data(data)
    try:
        # From bytes, not from the path: there is then no folder that a reference to outside data could start from.
        session = onnxruntime.InferenceSession(data, sess_options=options, providers=providers)
    except _BROKEN as exc:
        raise Corrupt("onnxruntime cannot load the artifact; store the model again as ONNX") from exc
    _check_values(session)
    return OnnxModel(session, len(data), placed)


def _providers(device: str) -> tuple[list[Any], str]:
    wants_cuda = device.startswith("cuda")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wants_cuda and not has_cuda:
        raise RequirementUnmet("this runtime's onnxruntime has no CUDA; use a runtime with onnxruntime-gpu")
    if has_cuda and (wants_cuda or device == "auto"):
        index = int(device.partition(":")[2] or 0)
        return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"], f"cuda:{index}"
    return ["CPUExecutionProvider"], "cpu"


_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_INVALID_ARGUMENT = (_STATE.InvalidArgument,)
_BROKEN = (_STATE.InvalidProtobuf, _STATE.InvalidGraph, _STATE.Fail, _STATE.InvalidArgument, _STATE.NotImplemented)


def _refuse_external_data(data: bytes) -> None:
    """UnsafeFormat if a tensor's data lies in another file, wherever that is: the artifact is all there is."""
    if b"external_data" not in data and b"location" not in data:
        return  # the key of every reference is the word "location"; parsing a large graph twice costs seconds
    try:
        import onnx
        from onnx.external_data_helper import _get_all_tensors, uses_external_data
    except ImportError:
        # Without the onnx package the reference cannot be told from the word; onnxruntime then refuses what it cannot
        # find beside a model that was given as bytes.
        return
    try:
        model = onnx.load_model_from_string(data)
        outside = any(uses_external_data(tensor) for tensor in _get_all_tensors(model))
    except Exception as exc:
        raise Corrupt("the artifact is not an ONNX model; store the model again as ONNX") from exc
    if outside:
        raise UnsafeFormat("the ONNX model keeps tensors in other files; save it as one file")


def _check_values(session: Any) -> None:
    for item in session.get_inputs():
        if item.type not in _DTYPES:
            raise InvalidInput(f"the ONNX input '{item.name}' is a {item.type}; only tensors can be sent")
    for item in session.get_outputs():
        if not item.type.startswith("tensor("):
            raise InvalidInput(
                f"the ONNX output '{item.name}' is a {item.type}, not a tensor; "
                "export with options={'zipmap': False} to get plain probabilities"
            )
