"""The Open Inference Protocol as other vendors' clients and plain curl use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stellwerk.client import connect
from tests.journey.stack import Platform, eventually

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="session")
def seen_by_triton(platform: Platform, iris_stored: str) -> dict[str, Any]:
    """What NVIDIA's client, unmodified, got over HTTP and gRPC."""
    program = Path(__file__).with_name("triton_client.py")
    command = [
        sys.executable,
        str(program),
        platform.http.removeprefix("http://"),
        platform.grpc,
        "iris",
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "TOKEN": platform.token},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_tritonclient_works_unchanged(
    seen_by_triton: dict[str, Any], transport: str, iris: tuple[Any, Any, Any]
) -> None:
    seen = seen_by_triton[transport]

    assert (seen["live"], seen["ready"], seen["model_ready"], seen["unknown_ready"]) == (
        True,
        True,
        True,
        False,
    )
    assert seen["server"] == "stellwerk"
    assert seen["model"]["name"] == "iris"
    assert seen["model"]["inputs"][0]["name"] == "X"
    assert seen["model"]["inputs"][0]["datatype"] == "FP64"
    assert [int(size) for size in seen["model"]["inputs"][0]["shape"]] == [-1, 4]
    assert seen["prediction"] == iris[0].predict(np.array(ROWS)).tolist()
    assert seen["id"] == "7"
    assert int(seen["version"]) >= 1


def test_tritonclients_own_defaults_work(
    seen_by_triton: dict[str, Any], iris: tuple[Any, Any, Any]
) -> None:
    expected = iris[0].predict(np.array(ROWS)).tolist()

    seen = seen_by_triton["http_defaults"]

    assert (seen["plain"], seen["compressed"]) == (expected, expected)
    assert seen["async"] == [expected] * 8


def test_tritonclient_asks_in_the_background_and_over_a_stream(
    seen_by_triton: dict[str, Any], iris: tuple[Any, Any, Any]
) -> None:
    expected = iris[0].predict(np.array(ROWS)).tolist()

    seen = seen_by_triton["grpc_many"]

    assert seen["async"] == [expected] * 8
    assert seen["stream"] == {str(number): expected for number in (0, 1, 3, 4, 5)}
    assert seen["final"] == [True] * 5
    assert len(seen["stream_errors"]) == 1 and "nobody" in seen["stream_errors"][0]


def test_tritonclient_without_a_token_is_refused(seen_by_triton: dict[str, Any]) -> None:
    assert len(seen_by_triton["refused"]) == 2
    assert all("token" in text for text in seen_by_triton["refused"])


def curl(platform: Platform, path: str, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {platform.token}",
         "-w", "\n%{http_code}", *arguments,
         platform.http + path],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    body, _, code = done.stdout.rpartition("\n")
    return int(code), json.loads(body)


def test_curl_does_the_same(
    platform: Platform, iris_stored: str, iris: tuple[Any, Any, Any]
) -> None:
    expected = iris[0].predict(np.array(ROWS)).tolist()

    assert curl(platform, "/v2")[1]["name"] == "stellwerk"
    assert curl(platform, "/v2/health/ready") == (200, {"ready": True})
    assert curl(platform, "/v2/models/iris")[1]["inputs"][0]["shape"] == [-1, 4]
    assert curl(platform, "/v2/models/iris/ready")[0] == 200
    tensor = {"name": "X", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
    for path in (
        "/v2/models/iris/infer",
        "/v2/models/iris/versions/1/infer",
        "/v2/models/default:iris/infer",
    ):
        status, answer = curl(platform, path, "-d", json.dumps({"inputs": [tensor]}))
        assert status == 200, answer
        assert answer["outputs"][0]["data"] == expected
    status, answer = curl(
        platform, "/v1/buckets/default/models/iris:predict", "-d", json.dumps({"instances": ROWS})
    )
    assert (status, answer["predictions"]) == (200, expected)


def test_other_methods_keep_their_shape(
    platform: Platform, iris_stored: str, iris: tuple[Any, Any, Any]
) -> None:
    tensor = {"name": "X", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
    body = {"parameters": {"method": "predict_proba"}, "inputs": [tensor]}

    status, answer = curl(platform, "/v2/models/iris/infer", "-d", json.dumps(body))

    assert status == 200, answer
    assert answer["outputs"][0]["shape"] == [2, 3]
    found = np.array(answer["outputs"][0]["data"]).reshape(2, 3)
    np.testing.assert_allclose(found, iris[0].predict_proba(np.array(ROWS)), atol=1e-9)


def test_a_compressed_request_and_answer(platform: Platform, iris_stored: str) -> None:
    import gzip

    body = gzip.compress(json.dumps({"instances": ROWS * 500}).encode())
    status, headers, data = platform.raw(
        "POST",
        "/v1/buckets/default/models/iris:predict",
        body,
        Content_Encoding="gzip",
        Accept_Encoding="gzip",
    )

    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert len(json.loads(gzip.decompress(data))["predictions"]) == 1000


def test_a_request_id_is_kept_and_found_in_every_services_log(
    platform: Platform, iris_stored: str
) -> None:
    body = json.dumps({"instances": ROWS}).encode()
    _, headers, _ = platform.raw(
        "POST", "/v1/buckets/default/models/iris:predict", body, X_Request_Id="find-me-again-17"
    )

    assert headers["x-request-id"] == "find-me-again-17"
    everyone = {"api_gateway", "router", "runtime"}
    eventually(
        lambda: everyone <= services_that_say(platform, "find-me-again-17"), 5, "each logged it"
    )


def services_that_say(platform: Platform, text: str) -> set[str]:
    lines = [
        line
        for line in platform.log_path.read_text().splitlines()
        if text in line and line.endswith("}")
    ]
    events = [json.loads(line) for line in lines]
    return {
        event["service"]
        for event in events
        if text in (event.get("request_id"), *event.get("requests", ()))
    }


def test_the_openapi_document_is_served_and_names_every_route(platform: Platform) -> None:
    status, _, data = platform.raw("GET", "/v1/openapi.json", token="")
    document = json.loads(data)

    assert status == 200
    assert document["openapi"].startswith("3.1")
    assert "/v2/models/{model_name}/infer" in document["paths"]


def test_a_model_of_fifty_megabytes_is_loaded_once(platform: Platform, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3600, 3600)
    with connect(platform.http, platform.token) as sw:
        stored = sw.models.put(module.eval(), "fifty-megabytes", example=torch.zeros(2, 3600))
        assert stored.size_bytes > 50_000_000
        before = platform.metric("stellwerk_model_loads_total", stored.name)
        for _ in range(100):
            sw.runtime.model("fifty-megabytes").predict(np.zeros((1, 3600), np.float32))

    assert before == 0
    assert platform.metric("stellwerk_model_loads_total", stored.name) == 1
