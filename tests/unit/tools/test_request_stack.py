"""With what the platform that is traced is started."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from tools.request_trace import stack
from tools.request_trace.injected.sitecustomize import FOLDER, PRODUCT


def test_the_services_and_the_wire_are_product_code_and_the_launcher_is_not() -> None:
    folders = {path.relative_to(stack.REPOSITORY).as_posix() for path in stack.product_folders()}

    assert {"services/router", "services/chassis", "sdk/stellwerk/wire"} <= folders
    assert "services/local" not in folders


def test_processes_get_this_checkouts_code_and_no_settings(tmp_path: Path) -> None:
    inherited = {"STELLWERK_BROKER": "pull", "HOME": "/root", "PYTHONPATH": "/last"}

    environment = stack.environment(tmp_path, inherited)

    assert "STELLWERK_BROKER" not in environment
    assert environment["HOME"] == "/root"
    first, *_, last = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "sitecustomize.py").exists()
    assert last == "/last"
    assert environment[FOLDER] == str(tmp_path)
    assert environment[PRODUCT]


def test_the_formats_of_this_checkout_are_found_first(tmp_path: Path) -> None:
    stack.write_metadata(tmp_path)

    (found,) = metadata.distributions(path=[str(tmp_path)])

    assert found.name.startswith("stellwerk")
    assert {"skops", "onnx"} <= {one.name for one in found.entry_points}


def test_a_recording_lasts_as_long_as_its_context(tmp_path: Path) -> None:
    switch = stack.Switch(tmp_path)

    with switch.recording(9):
        assert (tmp_path / "switch").read_bytes() == b"\x09"
    assert (tmp_path / "switch").read_bytes() == b"\0"


def test_free_ports_are_different() -> None:
    assert len(set(stack.free_ports(3))) == 3
