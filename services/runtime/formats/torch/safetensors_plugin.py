"""PyTorch weights in safetensors beside a declared module. torch comes with the first model; see
safetensors_module.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from services.runtime.formats import installed
from services.runtime.formats.port import FormatSettings, LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class TorchSafetensorsFormat:
    """safetensors weights; `format_options` say what they are weights of."""

    name = "torch_safetensors"
    runs_code = False

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed.versions("torch", "safetensors")

    def frameworks(self) -> dict[str, str]:
        """Versions of torch and safetensors."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """CUDA devices."""
        return installed.cuda_devices()

    def prepare(self) -> None:
        """Imports the libraries."""
        importlib.import_module("services.runtime.formats.torch.safetensors_module")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """See the module that loads it."""
        from services.runtime.formats.torch import safetensors_module

        return safetensors_module.load(path, version, device, self._settings)
