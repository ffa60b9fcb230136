"""ONNX models on onnxruntime. The library comes with the first model; see onnx_session."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from services.runtime.formats import installed
from services.runtime.formats.port import FormatSettings, LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class OnnxFormat:
    """`.onnx` files."""

    name = "onnx"
    runs_code = False

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed.versions("onnxruntime")

    def frameworks(self) -> dict[str, str]:
        """Versions of onnxruntime."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """None."""
        return ()

    def prepare(self) -> None:
        """Imports the libraries."""
        importlib.import_module("services.runtime.formats.onnx.session")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """See the module that loads it."""
        from services.runtime.formats.onnx import session as onnx_session

        return onnx_session.load(path, device, self._settings.threads)
