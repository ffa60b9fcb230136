"""The work that every system does: one flower of iris through a logistic regression, and a model of
50 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import orjson
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge

from stellwerk.inference.v2 import grpc_service_pb2 as pb

# The first flower of iris, a setosa: class 0.
FLOWER = [5.1, 3.5, 1.4, 0.2]
DATATYPES = {"FP32": np.float32, "FP64": np.float64}
# 2^18 floats of 4 bytes: one MiB.
LARGE_TENSOR = (1, 1 << 18)
# 6,500 targets of 1,000 features are 52 MB of coefficients.
LARGE_FEATURES, LARGE_TARGETS = 1000, 6500


def iris_model() -> LogisticRegression:
    """The model, fitted anew; peers fit theirs with the same parameters and the same
    scikit-learn.
    """
    return LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))


def large_model() -> Any:
    """A linear model whose coefficients take 52 MB."""
    random = np.random.default_rng(seed=7)
    rows = 8
    return Ridge().fit(
        random.normal(size=(rows, LARGE_FEATURES)), random.normal(size=(rows, LARGE_TARGETS))
    )


def mirror_model(element: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """Returns a model that gives back the matrix that it gets; `element` is ONNX's element type."""
    shape = ["rows", "columns"]
    given, back = (onnx.helper.make_tensor_value_info(name, element, shape) for name in ("x", "y"))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "mirror", [given], [back]
    )
    return onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )


def infer_body(name: str, datatype: str, rows: list[list[float]]) -> bytes:
    """An Open Inference request in JSON."""
    data = [value for row in rows for value in row]
    tensor = {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])], "data": data}
    return orjson.dumps({"inputs": [tensor]})


def infer_message(model: str, name: str, datatype: str) -> bytes:
    """The flower as a serialised ModelInferRequest with raw contents."""
    return _message(model, name, datatype, np.array([FLOWER], DATATYPES[datatype]))


def mirror_message(model: str, name: str) -> bytes:
    """A mebibyte of FP32 as a serialised ModelInferRequest with raw contents."""
    return _message(model, name, "FP32", _large_tensor())


def is_mirrored(answer: pb.ModelInferResponse) -> bool:
    """Whether an answer holds the tensor of `mirror_message`, bit for bit."""
    return list(answer.raw_output_contents) == [_large_tensor().tobytes()]


def _large_tensor() -> np.ndarray:
    return np.random.default_rng(seed=5).normal(size=LARGE_TENSOR).astype(np.float32)


def _message(model: str, name: str, datatype: str, array: np.ndarray) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
    raw = [array.tobytes()]
    return pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=raw
    ).SerializeToString()


def is_setosa(answer: bytes) -> bool:
    """Whether an Open Inference answer says class 0 for the one flower."""
    outputs = orjson.loads(answer).get("outputs") or [{}]
    return bool(outputs[0].get("data") == [0] or outputs[0].get("data") == [[0]])
