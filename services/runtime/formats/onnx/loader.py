"""Builds an onnxruntime session of an artifact, and reads nothing outside of the artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from services.runtime.formats.onnx import guard
from services.runtime.formats.onnx.model import DTYPES, OnnxModel
from stellwerk.wire.errors import Corrupt, InvalidInput, RequirementUnmet

# onnxruntime's severity "error": what is less severe would bypass our logs on stderr.
_LOG_ERRORS = 3
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_BROKEN = (
    _STATE.InvalidProtobuf,
    _STATE.InvalidGraph,
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.NotImplemented,
)


def load(path: Path, device: str, threads: int) -> OnnxModel:
    """Returns the model in the file; each call may use `threads` threads.

    Raises UnsafeFormat for tensors in other files, Corrupt for what onnxruntime cannot load,
    RequirementUnmet without the device, InvalidInput for inputs or outputs that are no tensors.
    """
    providers, placed = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    # Without this, onnxruntime would also take its own ORT format, which the guard does not read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    guard.check(path)
    try:
        # By path: a session made of bytes keeps the bytes for life, beside the weights.
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=providers)
    except _BROKEN as exc:
        raise Corrupt(
            "onnxruntime cannot load the artifact; store the model again as ONNX"
        ) from exc
    _check_values(session)
    return OnnxModel(session, path.stat().st_size, placed)


def _providers(device: str) -> tuple[list[Any], str]:
    """Returns onnxruntime's providers for the device, and the device's name."""
    wants_cuda = device.startswith("cuda")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wants_cuda and not has_cuda:
        raise RequirementUnmet(
            "this runtime's onnxruntime has no CUDA; use a runtime with onnxruntime-gpu"
        )
    if has_cuda and (wants_cuda or device == "auto"):
        index = int(device.partition(":")[2] or 0)
        providers = [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
        return providers, f"cuda:{index}"
    return ["CPUExecutionProvider"], "cpu"


def _check_values(session: Any) -> None:
    """Raises InvalidInput for a graph whose inputs or outputs no tensor can carry."""
    for item in session.get_inputs():
        if item.type not in DTYPES:
            raise InvalidInput(
                f"the ONNX input '{item.name}' is a {item.type}; only tensors can be sent"
            )
    for item in session.get_outputs():
        if not item.type.startswith("tensor("):
            raise InvalidInput(
                f"the ONNX output '{item.name}' is a {item.type}, not a tensor; "
                "export with options={'zipmap': False} to get plain probabilities"
            )
