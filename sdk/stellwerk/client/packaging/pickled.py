"""Packages any object as a pickle, which runs code when it is loaded: only if the caller gives both
the format and `unsafe=True`.

Pickles are written here and never read. Storing one needs a permission of its own.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stellwerk.client.errors import InvalidInput, UnsafeFormat
from stellwerk.client.packaging.artifact import Package


def check_allowed(format: str | None, unsafe: bool) -> None:
    """Raises UnsafeFormat unless both `format="pickle"` and `unsafe` were given."""
    if format != "pickle" or not unsafe:
        raise UnsafeFormat(
            "a pickle runs code when it is loaded; store the model as skops or ONNX, "
            'or say format="pickle", unsafe=True'
        )


def package(model: Any, folder: Path, *, example: Any = None, unsafe: bool = False) -> Package:
    """Writes any object into the folder and returns its package. Raises UnsafeFormat without
    `unsafe`, InvalidInput for an object that cannot be pickled.
    """
    check_allowed("pickle", unsafe)
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ModuleNotFoundError as exc:
        raise InvalidInput(
            "this needs the package cloudpickle; install it first", package="cloudpickle"
        ) from exc
    path = folder / "model.pkl"
    try:
        with path.open("wb") as file:
            cloudpickle.dump(model, file)
    except (TypeError, AttributeError, RecursionError) as exc:
        raise InvalidInput(f"the {type(model).__name__} cannot be pickled") from exc
    if not hasattr(model, "n_features_in_") and example is None:
        return Package("pickle", path)
    estimator = importlib.import_module("stellwerk.client.packaging.estimator")
    return Package("pickle", path, estimator.signature_of(model, example))
