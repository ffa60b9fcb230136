"""The eight models of the mixed load, the forms of request sent to each, and the right answers.

Four are classifiers of scikit-learn on iris, four are ONNX graphs that give back what they get. A
model's datatype is fixed, so the datatype varies from model to model, and rows and columns vary
from form to form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB

from benchmarks.work import mirror_model

Shape = tuple[int, int]
# Rows and columns. A flower has four columns.
_FLOWERS: Sequence[Shape] = [(1, 4), (2, 4), (4, 4)]
_MATRICES: Sequence[Shape] = [(1, 4), (2, 3), (4, 8)]


@dataclass(frozen=True, slots=True)
class MixedModel:
    """A model to store, and the tensors that it is sent.

    `answer` returns the right values of the output for the rows of an input, both in row order.
    """

    name: str
    model: Any
    input: str
    datatype: str
    shapes: Sequence[Shape]
    answer: Callable[[np.ndarray], np.ndarray]

    def rows(self, shape: Shape, seed: Sequence[int]) -> np.ndarray:
        """Returns rows of this shape; the same seed gives the same rows."""
        random = np.random.default_rng(list(seed))
        if self.datatype.startswith("INT"):
            return random.integers(0, 100, shape)
        return random.uniform(0.1, 8, shape).round(2)


def mixed_models() -> list[MixedModel]:
    """Returns the eight models, fitted anew."""
    flowers, species = load_iris(return_X_y=True)
    classifiers: dict[str, Any] = {
        "logistic": LogisticRegression(max_iter=500),
        "discriminant": LinearDiscriminantAnalysis(),
        "bayes": GaussianNB(),
        "ridge": RidgeClassifier(),
    }
    mirrors = {
        "FP32": onnx.TensorProto.FLOAT,
        "FP64": onnx.TensorProto.DOUBLE,
        "INT32": onnx.TensorProto.INT32,
        "INT64": onnx.TensorProto.INT64,
    }
    fitted = {name: one.fit(flowers, species) for name, one in classifiers.items()}
    return [
        *(
            MixedModel(f"mixed-{name}", one, "X", "FP64", _FLOWERS, one.predict)
            for name, one in fitted.items()
        ),
        *(
            MixedModel(
                f"mixed-mirror-{datatype.lower()}",
                mirror_model(element),
                "x",
                datatype,
                _MATRICES,
                lambda rows: rows,
            )
            for datatype, element in mirrors.items()
        ),
    ]
