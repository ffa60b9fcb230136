"""Offers the format "pickle": pickle, joblib and cloudpickle files. Loading one runs its code, with
this process's rights.

A runtime refuses this format unless its operator allows it. There is no child process to isolate
such code: allow it only on a runtime whose models you would run by hand.
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


class PickleFormat(ModelFormat):
    """The format of files that joblib can load: pickles of all kinds, and joblib's own."""

    name = "pickle"
    runs_code = True

    def __init__(self, settings: FormatSettings) -> None:
        self._frameworks = installed_versions("joblib", "cloudpickle")

    def frameworks(self) -> dict[str, str]:
        """Returns the versions of joblib and cloudpickle."""
        return self._frameworks

    def prepare(self) -> None:
        """Imports joblib, and cloudpickle, which its own files import."""
        importlib.import_module("services.runtime.formats.pickled.loader")
        importlib.import_module("cloudpickle")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the estimator in a pickle; see the loader."""
        from services.runtime.formats.pickled import loader

        return loader.load(path, version)
