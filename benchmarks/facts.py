"""Where a run took place: what a reader needs to judge its numbers. No names of hosts or users."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "grpcio",
    "httptools",
    "numpy",
    "orjson",
    "pika",
    "protobuf",
    "pymongo",
    "scikit-learn",
    "skops",
    "uvloop",
)


def environment() -> dict[str, Any]:
    """Processor, memory, system, versions, load."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "wrk": _first_line(["wrk", "-v"]),
        "h2load": _first_line(["h2load", "--version"]),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "pinning": "none: the load generators share the cores with both systems",
    }


def commit() -> tuple[str, bool]:
    """The short name of the commit, and whether files differ from it."""
    return _first_line(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "--verify", "--quiet", "HEAD"]
    ) or "unknown", bool(
        _first_line(
            ["git", "-C", str(ROOT), "status", "--porcelain", "--", "services", "sdk", "generated"]
        )
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _first_line(command: list[str]) -> str:
    """The first line that a command says, or "" if there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ((done.stdout or done.stderr).splitlines() or [""])[0].strip()
