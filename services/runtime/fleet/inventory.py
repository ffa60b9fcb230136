"""Finds what this process may use: cores and memory, as affinity and control groups bound them, and
the frameworks and devices of its formats.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

import psutil

from services.runtime.formats.port import ModelFormat
from stellwerk.router.v1 import router_service_pb2 as router_pb2

_CGROUP = Path("/sys/fs/cgroup")


def cpu_cores(root: Path = _CGROUP) -> int:
    """Returns the number of cores that this process may use; at least 1."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _cpu_quota(root)
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _cpu_quota(root: Path) -> float:
    """Returns the cores that control groups of version 2 or 1 grant; 0 for no limit."""
    words = _read(root / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota = _read(root / "cpu" / "cpu.cfs_quota_us")
    period = _read(root / "cpu" / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else 0.0


def memory_bytes(root: Path = _CGROUP) -> int:
    """Returns the bytes of memory that this process may use."""
    total = int(psutil.virtual_memory().total)
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        limit = _read(path)
        if limit.isdigit():
            return min(total, int(limit))
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def frameworks(formats: Iterable[ModelFormat]) -> dict[str, str]:
    """Returns the versions of the formats' libraries, of pandas and of scipy, by package name."""
    found: dict[str, str] = {}
    for item in formats:
        found.update(item.frameworks())
    for name in ("pandas", "scipy"):
        try:
            found[name] = package_version(name)
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def accelerators(formats: Iterable[ModelFormat]) -> list[router_pb2.Accelerator]:
    """Returns the devices that a format can use, each once, in the driver's order."""
    lists = [list(item.accelerators()) for item in formats]
    return max(lists, key=len, default=[])
