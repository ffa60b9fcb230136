"""Models as pickles, which run code when they are loaded: only where the caller says twice that
this is meant.

They are written here and never read. The platform takes them only from who holds that permission.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stellwerk.client.errors import InvalidInput, UnsafeFormat
from stellwerk.client.packaging.artifact import Package


def check_allowed(format: str | None, unsafe: bool) -> None:
    """Raises UnsafeFormat unless both the format and its danger were named."""
    if format != "pickle" or not unsafe:
        raise UnsafeFormat(
            "a pickle runs code when it is loaded; store the model as skops or ONNX, "
            'or say format="pickle", unsafe=True'
        )


def package(model: Any, folder: Path, *, example: Any = None, unsafe: bool = False) -> Package:
    """Stores any object. Needs the package cloudpickle."""
    check_allowed("pickle", unsafe)
    cloudpickle = importlib.import_module("cloudpickle")
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
