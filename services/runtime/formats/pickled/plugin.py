"""pickle, joblib and cloudpickle artifacts. Loading one runs whatever code it carries, with this
process's rights.

The registry refuses this format unless the runtime was started to allow it. There is no isolation
in a child process yet: allow it only on a runtime whose models you would run by hand.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from services.runtime.formats import installed
from services.runtime.formats.pickled.model import PickledModel
from services.runtime.formats.port import FormatSettings
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import Corrupt


class PickleFormat:
    """What pickle can load; joblib's own files too."""

    name = "pickle"
    runs_code = True

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed.versions("joblib", "cloudpickle")

    def frameworks(self) -> dict[str, str]:
        """Versions of joblib and cloudpickle."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        return ()

    def prepare(self) -> None:
        """Imports the libraries; cloudpickle's files name it."""
        for name in ("joblib", "cloudpickle"):
            importlib.import_module(name)

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> PickledModel:
        """Unpickles the artifact. joblib reads plain pickles as well as its own files."""
        import joblib

        try:
            estimator = joblib.load(path)
        except MemoryError:
            raise
        except Exception as exc:
            raise Corrupt("the artifact cannot be unpickled here; store the model again") from exc
        return PickledModel(estimator, version, path.stat().st_size)
