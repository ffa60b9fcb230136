"""The `stellwerk` command as people type it, against the whole platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from tests.journey.stack import Platform


def stellwerk(platform: Platform, *args: str, token: str | None = None, code: int = 0) -> str:
    """What the command prints; JSON goes to stdout, errors to stderr."""
    command = [sys.executable, "-c", "from stellwerk.client.cli.root import main; main()", *args]
    environ = {
        **os.environ,
        "STELLWERK_URL": platform.http,
        "STELLWERK_TOKEN": token or platform.token,
    }
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    result = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100)
    assert result.returncode == code, (result.stdout, result.stderr)
    return result.stdout if code == 0 else result.stderr


def test_a_model_goes_in_answers_and_comes_out(
    platform: Platform, iris: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    model, X, _ = iris
    path = tmp_path / "iris.skops"
    skops.io.dump(model, path)
    np.save(tmp_path / "rows.npy", X)

    stored = json.loads(
        stellwerk(platform, "models", "put", str(path), "by-command", "--label", "by=cli", "--json")
    )
    answer = json.loads(
        stellwerk(platform, "predict", "by-command", "-i", str(tmp_path / "rows.npy"), "--json")
    )
    stellwerk(platform, "models", "get", "by-command", str(tmp_path / "back.skops"))
    stellwerk(platform, "models", "drop", "by-command", "--yes")

    assert stored["labels"] == {"by": "cli"}
    assert answer["predictions"] == model.predict(X).tolist()
    assert (tmp_path / "back.skops").read_bytes() == path.read_bytes()
    assert "no model" in stellwerk(platform, "models", "show", "by-command", code=1)


def test_an_application_gets_a_key_that_may_call_and_no_more(
    platform: Platform, iris_stored: str
) -> None:
    key = stellwerk(
        platform, "token", "create", "--principal", "cli-app", "--role", "caller"
    ).strip()

    assert stellwerk(platform, "predict", "iris", "[[5.1, 3.5, 1.4, 0.2]]", token=key) == "0\n"
    assert "principals/cli-app" in stellwerk(platform, "token", "whoami", token=key)
    assert stellwerk(platform, "token", "issue", token=key).count(".") == 2
    assert "models.write" in stellwerk(
        platform, "models", "drop", "iris", "--yes", token=key, code=1
    )
    (entry,) = json.loads(stellwerk(platform, "keys", "list", "cli-app", "--json"))
    stellwerk(platform, "keys", "revoke", entry["name"])


def test_the_platform_says_how_it_is(platform: Platform) -> None:
    assert "the platform is ready" in stellwerk(platform, "status")
    assert len(json.loads(stellwerk(platform, "runtimes", "--json"))) == 2
    assert stellwerk(platform, "audit", "verify").startswith("intact")
    assert "error:" in stellwerk(platform, "models", "list", token="wrong", code=1)
