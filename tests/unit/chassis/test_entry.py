"""A service that cannot start says why in one line, and its exit code says whether to try again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
KEY = "sws_router_" + "x" * 43


def start(**told: str) -> tuple[int, list[dict[str, Any]]]:
    """Returns exit code and log of a router with these settings, which end it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STELLWERK_")}
    path = os.pathsep.join(str(ROOT / name) for name in ("", "generated", "sdk"))
    environment = {"STELLWERK_LISTEN": "127.0.0.1:0", "STELLWERK_SERVICE_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-m", "services.router"],
        env={**kept, "PYTHONPATH": path, **environment, **told},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    # gRPC's own library writes lines of its own form when it cannot bind.
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    return done.returncode, [json.loads(line) for line in lines]


def test_settings_that_do_not_parse_are_logged_as_errors_each_with_its_variable() -> None:
    code, lines = start(STELLWERK_LOG_LEVEL="chatty", STELLWERK_MAX_QUEUED_BYTES="many")

    assert code == os.EX_CONFIG == 78
    assert [(line["level"], line["event"], line["variable"]) for line in lines] == [
        ("error", "setting_unusable", "STELLWERK_LOG_LEVEL"),
        ("error", "setting_unusable", "STELLWERK_MAX_QUEUED_BYTES"),
    ]
    assert lines[1]["problem"].startswith("Input should be a valid integer")
    assert lines[0]["service"] == "router"


@pytest.mark.parametrize("variable", ["STELLWERK_LISTEN", "STELLWERK_METRICS_LISTEN"])
def test_an_address_in_use_is_logged_in_one_line_and_may_be_tried_again(variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, lines = start(**{variable: address})

    errors = [line for line in lines if line["level"] == "error"]
    assert code == 1
    assert [line["event"] for line in errors] == ["address_unusable"]
    assert f"{variable}: {address} cannot be bound" in errors[0]["problem"]


def test_a_misspelt_setting_is_a_warning_that_names_the_right_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        _, lines = start(STELLWERK_LOG_LEVL="debug", STELLWERK_LISTEN=address)

    (warning,) = [line for line in lines if line["event"] == "setting_unknown"]
    assert warning["level"] == "warning"
    assert (warning["variable"], warning["nearest"]) == (
        "STELLWERK_LOG_LEVL",
        "STELLWERK_LOG_LEVEL",
    )
