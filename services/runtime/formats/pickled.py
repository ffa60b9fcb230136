"""pickle, joblib and cloudpickle artifacts. Loading one runs whatever code it carries, with this process's rights.

The registry refuses this format unless the runtime was started to allow it. There is no isolation in a child process
yet: allow it only on a runtime whose models you would run by hand.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path

import joblib

from services.runtime.formats.estimator import EstimatorModel
from services.runtime.formats.port import FormatSettings, signatures
from services.wire.errors import Corrupt
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class PickleFormat:
    """What pickle can load; joblib's own files too."""

    name = "pickle"
    runs_code = True

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings

    def frameworks(self) -> dict[str, str]:
        return {"joblib": joblib.__version__, "cloudpickle": package_version("cloudpickle")}

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        return ()

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> EstimatorModel:
        """Unpickles the artifact. joblib reads plain pickles as well as its own files."""
        # cloudpickle's files name its module; imported here so that its absence is told apart from a broken artifact.
        importlib.import_module("cloudpickle")
        try:
            estimator = joblib.load(path)
        except MemoryError:
            raise
        except Exception as exc:
            raise Corrupt("the artifact cannot be unpickled here; store the model again") from exc
        return EstimatorModel(estimator, signatures(version), path.stat().st_size)
