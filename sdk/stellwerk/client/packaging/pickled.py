"""Packages any object as a pickle, which runs code when it is loaded: only if the caller gives both
the format and `unsafe=True`.

Pickles are written here and never read. Storing one needs a permission of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle

from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging.artifact import Package


def package(model: Any, folder: Path, *, example: Any = None) -> Package:
    """Writes any object into the folder and returns its package. Raises InvalidInput for an
    object that cannot be pickled.
    """
    path = folder / "model.pkl"
    try:
        with path.open("wb") as file:
            cloudpickle.dump(model, file)
    except (TypeError, AttributeError, RecursionError) as exc:
        raise InvalidInput(f"the {type(model).__name__} cannot be pickled") from exc
    if not hasattr(model, "n_features_in_") and example is None:
        return Package("pickle", path)
    # Imported here: a pickle of no estimator needs no scikit-learn.
    from stellwerk.client.packaging import estimator

    return Package("pickle", path, estimator.signature_of(model, example))
