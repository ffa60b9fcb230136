"""Offers the format "skops": scikit-learn models in skops files. Imports no library before a first
model.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from services.runtime.formats.port import (
    FormatSettings,
    LoadedModel,
    ModelFormat,
    installed_versions,
)
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2


class SkopsFormat(ModelFormat):
    """The format of `.skops` files."""

    name = "skops"

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed_versions("scikit-learn", "skops", "numpy", "scipy")

    def frameworks(self) -> dict[str, str]:
        """Returns the versions of scikit-learn, skops, numpy and scipy."""
        return self._frameworks

    def prepare(self) -> None:
        """Imports scikit-learn and skops."""
        importlib.import_module("services.runtime.formats.sklearn.loader")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the estimator in a skops file; see the loader."""
        from services.runtime.formats.sklearn import loader

        return loader.load(path, version, self._settings.memory_bytes)
