"""The wheel holds all that the services and the command need: it is what the images install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from services.api_gateway import main; from services.api_gateway.openapi import comments
from services.controlplane import main as controlplane
from services.repository import main as repository
from services.router import main as router
from services.runtime import main as runtime
from stellwerk.client import connect
from services.local import cli
print(json.dumps([main.__file__, connect.__module__]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's contents."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT], check=True
    )
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def run(installed: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_service_and_the_client_are_imported_from_it(installed: Path) -> None:
    where, _ = json.loads(run(installed, "-c", PROGRAM))

    assert where.startswith(str(installed))


def test_the_document_keeps_the_comments_of_the_protos(installed: Path) -> None:
    assert (installed / "stellwerk.binpb").stat().st_size == (
        ROOT / "generated" / "stellwerk.binpb"
    ).stat().st_size
    assert list(installed.glob("services/api_gateway/*.html"))


def test_no_test_and_no_tool_is_in_it(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}

    assert names <= {"services", "stellwerk", "inference", "stellwerk.binpb", "bin"}
