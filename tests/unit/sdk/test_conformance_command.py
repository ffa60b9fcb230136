"""`stellwerk conformance`: exit codes, forms of the report, and model files for other servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from stellwerk.client.cli.root import app
from stellwerk.conformance.models import mlserver, onnx_graphs, triton
from stellwerk.conformance.models.definitions import MODELS
from tests.unit.sdk.conformance_server import serving


def command(*args: str, code: int) -> Any:
    result = CliRunner().invoke(
        app, ["conformance", *args], env={"STELLWERK_TOKEN": "secret", "COLUMNS": "200"}
    )
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_exit_code_0_if_nothing_failed_and_1_if_something_did() -> None:
    with serving() as server:
        passed = command(server.url, "--only", "rest.id", code=0)
        server.faults.add("ids are lost")
        failed = command(server.url, "--only", "rest.id", code=1)

    assert "PASS  The request's id is returned  [specified] rest.id" in passed.stdout
    assert "in all: 1 passed, 0 failed, 0 skipped" in passed.stdout
    assert 'expected  "id" 42' in failed.stdout
    assert "see       inference_rest.md, Inference Request JSON Object" in failed.stdout


def test_exit_code_2_if_the_server_cannot_be_reached() -> None:
    assert "http://127.0.0.1:9 cannot be reached" in command("http://127.0.0.1:9", code=2).stderr


def test_exit_code_2_without_an_address() -> None:
    assert "give the address of a server" in command(code=2).stderr


def test_json_holds_every_result_and_the_numbers() -> None:
    with serving("ids are lost") as server:
        found = json.loads(
            command(server.url, "--only", "rest.*id", "--format", "json", code=1).stdout
        )

    entry = next(result for result in found["results"] if result["case"] == "rest.id")
    assert (entry["verdict"], entry["basis"], entry["got"]) == ("fail", "specified", "None")
    assert found["about"]["server"] == "test 1"
    assert found["summary"]["specified"]["fail"] == found["summary"]["all"]["fail"] == 2


def test_markdown_goes_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    with serving("ids are lost") as server:
        done = command(
            server.url, "--only", "rest*", "--format", "markdown", "--output", str(target), code=1
        )

    text = target.read_text()
    assert text.startswith("# Open Inference Protocol: test 1\n")
    assert '| The request\'s id is returned | "id" 42 | None |' in text
    assert "| the server has no model conformance_add_sub |" in text
    assert done.stdout == "" and "the report is in" in done.stderr
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_a_model_of_another_name_is_used() -> None:
    with serving() as server:
        shown = command(server.url, "--only", "rest.response", "--model", "nobody", code=0)

    assert "the server has no model nobody" in shown.stdout


def test_the_environments_token_is_not_sent() -> None:
    seen: list[str | None] = []
    with serving() as server:
        handler = server.RequestHandlerClass

        class Watching(handler):  # type: ignore[misc, valid-type]
            def do_GET(self) -> None:
                seen.append(self.headers.get("authorization"))
                super().do_GET()

        server.RequestHandlerClass = Watching
        command(server.url, "--only", "rest.live", code=0)
        assert set(seen) == {None}
        command(server.url, "--only", "rest.live", "--token", "given", code=0)
        assert "Bearer given" in seen


def test_the_cases_can_be_listed() -> None:
    shown = command("--list", "--only", "streaming", code=0).stdout

    assert "grpc.streaming.error_in_band  [specified] An error is told in its response" in shown
    assert "conformance_echo_fp32: echo, for FP32 tensors" in shown


def test_models_are_written_for_triton(tmp_path: Path) -> None:
    command("--write-models", str(tmp_path), "--for", "triton", code=0)

    config = (tmp_path / "conformance_add_sub/config.pbtxt").read_text()
    assert 'input { name: "INPUT1" data_type: TYPE_INT32 dims: [ -1, -1 ] }' in config
    assert "class TritonPythonModel" in (tmp_path / "conformance_add_sub/1/model.py").read_text()
    assert "decoupled: true" in triton.config(MODELS["count_up"])
    assert "TYPE_STRING" in triton.config(MODELS["echo_bytes"])
    assert not (tmp_path / "conformance_scalar").exists()


def test_models_are_written_for_mlserver(tmp_path: Path) -> None:
    command("--write-models", str(tmp_path), "--for", "mlserver", code=0)

    assert {path.name for path in tmp_path.iterdir()} == {model.name for model in MODELS.values()}
    settings = json.loads((tmp_path / "conformance_mixed/model-settings.json").read_text())
    assert settings == mlserver.settings(MODELS["mixed"])
    assert settings["inputs"][1] == {"name": "TEXTS", "datatype": "BYTES", "shape": [-1, -1]}
    assert (tmp_path / "conformance_mixed/conformance_runtime.py").is_file()


GRAPHS = onnx_graphs.graphs()


@pytest.mark.parametrize("key", sorted(GRAPHS))
def test_each_onnx_graph_does_what_its_model_is_defined_to_do(key: str) -> None:
    model = MODELS[key]
    session = onnxruntime.InferenceSession(GRAPHS[key].SerializeToString())
    kinds = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": object}
    feeds = {}
    for spec in model.inputs:
        shape = [2 if size < 0 else size for size in spec.shape]
        kind = kinds.get(spec.datatype) or spec.datatype.lower()
        values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        feeds[spec.name] = (
            values.astype(str).astype(object) if kind is object else values.astype(kind)
        )

    outputs = session.run([spec.name for spec in model.outputs], feeds)

    given = list(feeds.values())
    expected = [given[0] + given[1], given[0] - given[1]] if key == "add_sub" else given
    for got, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_graph_that_fails_on_13_fails_on_13_and_echoes_12() -> None:
    session = onnxruntime.InferenceSession(GRAPHS["fails_on_13"].SerializeToString())

    assert session.run(None, {"INPUT0": np.array([[0, 12]])})[0].tolist() == [[0, 12]]
    with pytest.raises(Exception, match="13"):
        session.run(None, {"INPUT0": np.array([[1, 13]])})
