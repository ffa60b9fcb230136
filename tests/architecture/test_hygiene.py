"""Dangerous constructs, sleeping and patching in tests, in the repository and planted in a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import hygiene
from tests.architecture.planting import ROOT, copy, expect_none, new_findings


@pytest.mark.parametrize(
    "check",
    [hygiene.dangerous, hygiene.sleeps, hygiene.lapsed_sleeps, hygiene.patches],
    ids=lambda check: check.__name__,
)
def test_the_repository_is_clean(check) -> None:
    expect_none(check(ROOT))


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("import pickle", "pickle runs code"),
        ("from joblib import load", "joblib runs code"),
        ("def f():\n    import cloudpickle", "cloudpickle runs code"),
        ("import dill", "dill runs code"),
        ("x = torch.load(path)", "unpickles"),
        ("x = numpy.load(path, allow_pickle=True)", "unpickles"),
        ("x = yaml.load(text)", "safe_load"),
        ("x = eval('1')", "eval"),
        ("exec('1')", "exec"),
        ("subprocess.run('ls', shell=True)", "shell"),
        ("httpx.get(url, verify=False)", "certificate"),
        ("archive.extractall(path)", "archive"),
        ("open_it().extractall(path)", "archive"),
        ("await asyncio.wait_for(f(), 1)", "cancellation"),
    ],
)
def test_a_planted_danger_is_found(tmp_path: Path, text: str, finding: str) -> None:
    root = copy(tmp_path, "sdk/stellwerk/wire")

    found = new_findings(hygiene.dangerous, root, "services/router/new.py", text)

    assert len(found) == 1
    assert finding in found[0]


@pytest.mark.parametrize(
    "text", ["model.eval()", "x = yaml.safe_load(text)", "httpx.get(url, verify=True)"]
)
def test_a_harmless_namesake_is_no_finding(tmp_path: Path, text: str) -> None:
    (tmp_path / "services").mkdir()

    assert new_findings(hygiene.dangerous, tmp_path, "services/new.py", text) == []


def test_formats_that_run_code_are_allowed_in_their_sandboxed_home(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()

    assert (
        new_findings(
            hygiene.dangerous, tmp_path, "services/runtime/formats/new.py", "import pickle"
        )
        == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "await asyncio.sleep(0.1)",
        "time.sleep(seconds)",
        "from asyncio import sleep\nawait sleep(1)",
        "def f():\n    while True:\n        time.sleep(1)",
    ],
)
def test_a_planted_sleep_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "tests").mkdir()

    found = new_findings(hygiene.sleeps, tmp_path, "tests/unit/test_new.py", text)

    assert len(found) == 1
    assert "instead of sleeping" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "await asyncio.sleep(0)",
        "await asyncio.sleep(30)",
        (
            "def f():\n    end = time.monotonic() + 1\n    while time.monotonic() < end:\n       "
            " time.sleep(0.1)"
        ),
        "def f():\n    while not port:\n        assert running\n        time.sleep(0.1)",
    ],
    ids=[
        "letting others run",
        "never answering",
        "polling with a deadline",
        "polling with an assertion",
    ],
)
def test_waiting_that_ends_is_no_sleep(tmp_path: Path, text: str) -> None:
    (tmp_path / "tests").mkdir()

    assert new_findings(hygiene.sleeps, tmp_path, "tests/unit/test_new.py", text) == []


@pytest.mark.parametrize(
    "text", ["from unittest import mock", "monkeypatch.setattr(config, 'load', None)"]
)
def test_a_planted_patch_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "tests").mkdir()

    found = new_findings(hygiene.patches, tmp_path, "tests/unit/test_new.py", text)

    assert len(found) == 1
    assert "use a fake" in found[0]
