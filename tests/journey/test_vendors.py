"""Clients of other vendors, unmodified and in their own environments, against the running
platform.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.journey.stack import Platform

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv-vendors"
PROGRAMS = ROOT / "tests" / "vendors"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def run(vendor: str, command: str, *arguments: str, token: str) -> str:
    """Runs a command of a vendor's environment; tools/install_vendors.sh makes these."""
    program = VENVS / vendor / "bin" / command
    assert program.exists(), f"there is no {program}; run tools/install_vendors.sh"
    done = subprocess.run(
        [str(program), *arguments],
        env={**os.environ, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def seen_by_kserve(platform: Platform, iris_stored: str) -> dict[str, Any]:
    program = str(PROGRAMS / "kserve_client.py")
    output = run(
        "kserve", "python", program, platform.http, platform.grpc, "iris", token=platform.token
    )
    seen: dict[str, Any] = json.loads(output.splitlines()[-1])
    return seen


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_kserve_clients_work_unchanged(
    seen_by_kserve: dict[str, Any], transport: str, iris: tuple[Any, Any, Any]
) -> None:
    seen, expected = seen_by_kserve[transport], iris[0].predict(np.array(ROWS)).tolist()

    assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, True)
    assert (seen["json"], seen["binary"]) == (expected, expected)
    assert seen["id"] == "7"
    # Its REST half does not look at the version.
    assert seen["version"] is None if transport == "rest" else int(seen["version"]) >= 1


@pytest.mark.parametrize("form", [[], ["--binary-data"]], ids=["json", "binary"])
def test_mlserver_infer_works_unchanged(
    platform: Platform,
    iris_stored: str,
    iris: tuple[Any, Any, Any],
    tmp_path: Path,
    form: list[str],
) -> None:
    asked, answered = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
    rows = np.array(ROWS * 5)
    tensors = [
        {"name": "X", "shape": [1, 4], "datatype": "FP64", "data": row.tolist()} for row in rows
    ]
    asked.write_text(
        "".join(json.dumps({"id": str(n), "inputs": [t]}) + "\n" for n, t in enumerate(tensors))
    )
    address = platform.http.removeprefix("http://")

    run(
        "mlserver", "mlserver", "infer",
        "-u", address, "-m", "iris", "-i", str(asked), "-o", str(answered),
        "-w", "2", "-s", "3", "-H", f"Authorization:Bearer {platform.token}", *form, token="",
    )  # fmt: skip

    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    by_index = {
        answer["parameters"]["batch_index"]: answer["outputs"][0]["data"] for answer in answers
    }
    assert [by_index[n] for n in range(10)] == [[label] for label in iris[0].predict(rows).tolist()]
