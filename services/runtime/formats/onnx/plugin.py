"""Offers the format "onnx": ONNX models on onnxruntime. Imports no library before a first model."""

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


class OnnxFormat(ModelFormat):
    """The format of `.onnx` files."""

    name = "onnx"

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed_versions("onnxruntime")

    def frameworks(self) -> dict[str, str]:
        """Returns the version of onnxruntime."""
        return self._frameworks

    def prepare(self) -> None:
        """Imports onnxruntime."""
        importlib.import_module("services.runtime.formats.onnx.loader")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the model in an `.onnx` file; see the loader."""
        from services.runtime.formats.onnx import loader

        return loader.load(path, device, self._settings.threads)
