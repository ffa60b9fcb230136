"""The walk-through of a new model format, followed to the letter: its package is built from the
page's own blocks, installed beside the platform, and answers over REST.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stellwerk.client import connect
from tests.journey.stack import Platform

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "walkthroughs" / "new-model-format.md").read_text()
# A file of the page: its path in a line of its own, then its contents.
FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"^```sh\n(curl .*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("walkthrough")
    for path, text in FILE.findall(PAGE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[Platform]:
    """A platform with the package of the page installed beside it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", folder / "installed"]
    subprocess.run([*pip, *options, folder / "linear-json"], check=True)
    path = os.pathsep.join([str(folder / "installed"), *filter(None, sys.path)])
    running = Platform(folder / "data", broker="pull", runtimes=1, settings={"PYTHONPATH": path})
    yield running
    running.stop()


def test_a_runtime_advertises_the_format(platform: Platform) -> None:
    _, answer = platform.call("GET", "/v1/runtimes")

    assert "linear_json" in answer["runtimes"][0]["formats"]


def test_the_model_of_the_page_is_stored_and_answers_what_the_page_says(
    platform: Platform, folder: Path
) -> None:
    environment = {**os.environ, "STELLWERK_URL": platform.http, "STELLWERK_TOKEN": platform.token}
    store = [sys.executable, folder / "linear-json" / "store.py"]
    subprocess.run(store, check=True, cwd=folder, env=environment)
    (call,) = CALL.findall(PAGE)

    called = subprocess.run(
        ["bash", "-c", call],
        check=True,
        capture_output=True,
        env={**environment, "URL": platform.http, "TOKEN": platform.token},
    )

    outputs = json.loads(called.stdout)["outputs"]
    said = re.search(r'`"outputs":(\[.*?\}\])`', PAGE)
    assert said is not None
    assert outputs == json.loads(said[1])


@pytest.mark.parametrize(
    ("name", "artifact", "row", "expected"),
    [
        ("narrow", {"weights": [2.0], "bias": 1.0}, [1.0, 1.0], (400, "X holds numbers, 1 in")),
        ("empty", {"bias": 1.0}, [1.0], (500, "no weights and bias; store the model again")),
    ],
)
def test_the_errors_of_the_plugin_reach_the_caller(
    platform: Platform,
    folder: Path,
    name: str,
    artifact: dict[str, object],
    row: list[float],
    expected: tuple[int, str],
) -> None:
    (folder / "artifact.json").write_text(json.dumps(artifact))
    with connect(platform.http, platform.token) as client:
        client.models.put(folder / "artifact.json", name, format="linear_json")

    tensor = {"name": "X", "datatype": "FP64", "shape": [1, len(row)], "data": row}
    status, answer = platform.call("POST", f"/v2/models/{name}/infer", {"inputs": [tensor]})

    assert status == expected[0], answer
    assert expected[1] in answer["error"]
