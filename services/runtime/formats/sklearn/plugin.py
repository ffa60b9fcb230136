"""scikit-learn models as skops files. The libraries come with the first model; see skops_file."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from services.runtime.formats import installed
from services.runtime.formats.port import FormatSettings, LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class SkopsFormat:
    """skops files."""

    name = "skops"
    runs_code = False

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed.versions("scikit-learn", "skops", "numpy", "scipy")

    def frameworks(self) -> dict[str, str]:
        """Versions of scikit-learn and what it stands on."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """None."""
        return ()

    def prepare(self) -> None:
        """Imports the libraries."""
        importlib.import_module("services.runtime.formats.sklearn.skops_file")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """See the module that loads it."""
        from services.runtime.formats.sklearn import skops_file

        return skops_file.load(path, version, self._settings.memory_bytes)
