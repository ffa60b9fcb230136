"""The undocumented parts of libraries that the platform builds on are there, and bounded."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from packaging.requirements import Requirement
from pika.adapters import asyncio_connection
from pika.connection import Connection

ROOT = Path(__file__).parents[3]
# Library → a module or class of it, and names that its source must hold.
PARTS = [
    ("pika", asyncio_connection, ["_AsyncioIOServicesAdapter", "_schedule_and_wrap_in_io_ref"]),
    ("pika", asyncio_connection.AsyncioConnection, ["custom_ioloop"]),
    ("pika", Connection, ["bytes_received", "_on_data_available", "server_properties"]),
]
BOUNDED = ("pika",)


@pytest.mark.parametrize(("library", "part", "names"), PARTS)
def test_a_part_that_the_platform_builds_on_is_there(
    library: str, part: object, names: list[str]
) -> None:
    source = inspect.getsource(part)  # type: ignore[arg-type]
    missing = [name for name in names if name not in source]

    assert not missing, (
        f"{library} {version(library)} has no {', '.join(missing)} in {part}: adapt the code that"
        " uses it, or bound the version in pyproject.toml"
    )


@pytest.mark.parametrize("library", BOUNDED)
def test_a_library_with_such_parts_is_bounded_and_the_installed_version_fits(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {found.name: found.specifier for found in map(Requirement, project["dependencies"])}

    assert any(bound.operator == "<" for bound in required[library]), f"{library} has no bound"
    assert required[library].contains(version(library))


def test_grpc_takes_a_handler_of_handlers() -> None:
    assert hasattr(grpc, "GenericRpcHandler"), (
        f"grpcio {version('grpcio')} has no GenericRpcHandler: the guard must find another way"
    )
