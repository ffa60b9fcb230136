"""Offers the formats "torch_export" and "torch_safetensors": PyTorch programs, and PyTorch weights
beside a declared module. Imports torch for a first model, or to ask for CUDA devices.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path

from services.runtime.formats.port import (
    FormatSettings,
    LoadedModel,
    ModelFormat,
    installed_versions,
)
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class TorchExportFormat(ModelFormat):
    """The format of `.pt2` files, which torch.export.save writes."""

    name = "torch_export"

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed_versions("torch")

    def frameworks(self) -> dict[str, str]:
        """Returns the version of torch."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """Returns the CUDA devices."""
        return cuda_devices()

    def prepare(self) -> None:
        """Imports torch."""
        importlib.import_module("services.runtime.formats.torch.export_loader")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the program in a `.pt2` file; see the loader and its guard."""
        from services.runtime.formats.torch import export_loader

        return export_loader.load(path, version, device, self._settings.threads)


class TorchSafetensorsFormat(ModelFormat):
    """The format of safetensors files; `format_options` declare the module of the weights."""

    name = "torch_safetensors"

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._frameworks = installed_versions("torch", "safetensors")

    def frameworks(self) -> dict[str, str]:
        """Returns the versions of torch and safetensors."""
        return self._frameworks

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """Returns the CUDA devices."""
        return cuda_devices()

    def prepare(self) -> None:
        """Imports torch and safetensors."""
        importlib.import_module("services.runtime.formats.torch.safetensors_loader")

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the module with the weights of a safetensors file; see the loader."""
        from services.runtime.formats.torch import safetensors_loader

        return safetensors_loader.load(path, version, device, self._settings)


def cuda_devices() -> Sequence[router_pb2.Accelerator]:
    """Returns the CUDA devices. Imports torch, which takes seconds, only where there may be one."""
    if not may_have_cuda():
        return ()
    from services.runtime.formats.torch import devices

    return devices.accelerators()


def may_have_cuda(devices: Path = Path("/dev")) -> bool:
    """Returns whether torch could see a CUDA device, by its build and the kernel's devices."""
    if installed_version("torch").endswith("+cpu"):
        return False
    # /dev/dxg is the device through which Windows shares its GPUs with Linux.
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
