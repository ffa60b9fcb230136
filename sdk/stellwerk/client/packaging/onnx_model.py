"""ONNX models: stored as they are; what they take and give is asked of onnxruntime, which also
shows that they load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from stellwerk.client.errors import Corrupt, InvalidInput
from stellwerk.client.packaging.artifact import Package
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

_DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}


def package(model: Any, folder: Path, *, example: Any = None) -> Package:
    """Stores an onnx.ModelProto; the example is not needed. Raises InvalidInput if onnxruntime does
    not take it.
    """
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return package_file(path)


def package_file(path: Path) -> Package:
    """The package of an ONNX file."""
    return Package("onnx", path, signature_of(path), {"onnxruntime": onnxruntime.__version__})


def signature_of(path: Path) -> list[MethodSignature]:
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's errors have no common class
        raise InvalidInput(
            "onnxruntime cannot load this ONNX model; is the file whole, and its opset known?"
        ) from exc
    return [
        MethodSignature(
            method="predict",
            inputs=[_spec(node) for node in session.get_inputs()],
            outputs=[_spec(node) for node in session.get_outputs()],
        )
    ]


def load(path: Path) -> Any:
    """The model as an onnx.ModelProto."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path))
    except DecodeError as exc:
        raise Corrupt("the artifact is no ONNX model") from exc


def _spec(node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
    if datatype is None:
        raise InvalidInput(
            f"'{node.name}' of the ONNX model is a {node.type}, not a tensor; "
            "for a scikit-learn classifier convert with options={'zipmap': False}",
            tensor=node.name,
        )
    shape = [
        dimension if isinstance(dimension, int) and dimension >= 0 else -1
        for dimension in node.shape
    ]
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)
