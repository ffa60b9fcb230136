"""Packages ONNX models as they are; onnxruntime tells their inputs and outputs, and so shows that
they load.
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
    """Writes an onnx.ModelProto into the folder and returns its package; the example is not needed.
    Raises InvalidInput if onnxruntime does not load it.
    """
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return package_file(path)


def package_file(path: Path, *, example: Any = None) -> Package:
    """Returns the package of an ONNX file; the example is not needed. Raises InvalidInput if
    onnxruntime does not load it.
    """
    return Package("onnx", path, signature_of(path), {"onnxruntime": onnxruntime.__version__})


def signature_of(path: Path) -> list[MethodSignature]:
    """Returns the inputs and outputs of the one method, predict. Raises InvalidInput if onnxruntime
    does not load the file, or if one of them is no tensor.
    """
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
    """Returns the model as an onnx.ModelProto. Raises Corrupt if the file is none."""
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
