"""The version of the installed platform."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def platform_version() -> str:
    """Returns the installed package's version, "unknown" if none is installed."""
    try:
        return version("stellwerk")
    except PackageNotFoundError:
        return "unknown"
