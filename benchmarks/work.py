"""The work that every system does: one flower of iris through a logistic regression, and a model of 50 MB."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge

from inference import grpc_service_pb2 as pb

# The first flower of iris, a setosa: class 0.
FLOWER = [5.1, 3.5, 1.4, 0.2]
DATATYPES = {"FP32": np.float32, "FP64": np.float64}
# 6,500 targets of 1,000 features are 52 MB of coefficients.
LARGE_FEATURES, LARGE_TARGETS = 1000, 6500


def iris_model() -> LogisticRegression:
    """The model, fitted anew; peers fit theirs with the same parameters and the same scikit-learn."""
    return LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))


def large_model() -> Any:
    """A linear model whose coefficients take 52 MB."""
    random = np.random.default_rng(seed=7)
    rows = 8
    return Ridge().fit(random.normal(size=(rows, LARGE_FEATURES)), random.normal(size=(rows, LARGE_TARGETS)))


def infer_body(name: str, datatype: str, rows: list[list[float]]) -> bytes:
    """An Open Inference request in JSON."""
    data = [value for row in rows for value in row]
    tensor = {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])], "data": data}
    return orjson.dumps({"inputs": [tensor]})


def infer_message(model: str, name: str, datatype: str) -> bytes:
    """The flower as a serialised ModelInferRequest with raw contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=[1, len(FLOWER)])
    raw = np.array(FLOWER, DATATYPES[datatype]).tobytes()
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw]).SerializeToString()


def is_setosa(answer: bytes) -> bool:
    """Whether an Open Inference answer says class 0 for the one flower."""
    outputs = orjson.loads(answer).get("outputs") or [{}]
    return bool(outputs[0].get("data") == [0] or outputs[0].get("data") == [[0]])
