"""Small real models and their metadata, trained in a blink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import tensor_pb2

NAME = "buckets/default/models/iris/versions/1"


def spec(
    name: str, datatype: str, *shape: int, columns: tuple[str, ...] = ()
) -> tensor_pb2.TensorSpec:
    """A tensor's declaration."""
    return tensor_pb2.TensorSpec(name=name, datatype=datatype, shape=shape, columns=columns)


def method(
    name: str, inputs: list[tensor_pb2.TensorSpec], outputs: list[tensor_pb2.TensorSpec]
) -> tensor_pb2.MethodSignature:
    """A method's declaration."""
    return tensor_pb2.MethodSignature(method=name, inputs=inputs, outputs=outputs)


def version(
    model_format: str, *signature: tensor_pb2.MethodSignature, name: str = NAME, **options: str
) -> repository_pb2.ModelVersion:
    """A version's metadata."""
    return repository_pb2.ModelVersion(
        name=name, version=1, format=model_format, signature=signature, format_options=options
    )


def iris_pipeline() -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A scaled logistic regression on iris, its features and its labels."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_iris(return_X_y=True)
    return (
        make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels),
        features,
        labels,
    )


def save_skops(estimator: Any, path: Path) -> Path:
    """Writes a skops file."""
    import skops.io

    skops.io.dump(estimator, path)
    return path
