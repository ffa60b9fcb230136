"""Unpickles artifacts, which runs whatever code they carry."""

from __future__ import annotations

from pathlib import Path

import joblib

from services.runtime.formats.pickled.model import PickledModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt


def load(path: Path, version: repository_pb2.ModelVersion) -> PickledModel:
    """Returns the estimator in the file; joblib reads plain pickles too. Raises Corrupt."""
    try:
        estimator = joblib.load(path)
    except MemoryError:
        raise
    except Exception as exc:
        raise Corrupt("the artifact cannot be unpickled here; store the model again") from exc
    return PickledModel(estimator, version, path.stat().st_size)
