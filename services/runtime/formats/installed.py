"""What is installed, asked without importing it: torch alone costs seconds and hundreds of megabytes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path


def versions(*packages: str) -> dict[str, str]:
    """Versions by package name, without a build's suffix such as "+cpu", so that ">=2.6" means what it says.

    Raises ImportError naming the first package that is not installed.
    """
    return {name: version(name).partition("+")[0] for name in packages}


def may_have_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether torch could see a CUDA device: its build is not for CPUs alone, and the kernel has such devices."""
    if version("torch").endswith("+cpu"):
        return False
    # /dev/dxg is how Windows lends its devices to Linux.
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
