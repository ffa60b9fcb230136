"""The version of the installed platform."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def platform_version() -> str:
    """The installed package's version, "unknown" when it is run from a bare folder."""
    try:
        return version("stellwerk")
    except PackageNotFoundError:
        return "unknown"
