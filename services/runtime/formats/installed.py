"""What is installed, asked without importing it: torch alone costs seconds and hundreds of
megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from stellwerk.router.v1 import router_service_pb2 as router_pb2


def versions(*packages: str) -> dict[str, str]:
    """Versions by package name, without a build's suffix such as "+cpu", so that ">=2.6" means what
    it says.

    Raises ImportError naming the first package that is not installed.
    """
    return {name: version(name).partition("+")[0] for name in packages}


def may_have_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether torch could see a CUDA device: its build is not for CPUs alone, and the kernel has
    such devices.
    """
    if version("torch").endswith("+cpu"):
        return False
    # /dev/dxg is how Windows lends its devices to Linux.
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def cuda_devices() -> Sequence[router_pb2.Accelerator]:
    """The CUDA devices; asking torch for them imports it, so it is asked only where there may be
    some.
    """
    if not may_have_cuda():
        return ()
    from services.runtime.formats.torch import devices as torch_devices

    return torch_devices.accelerators()
