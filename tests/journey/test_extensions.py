"""The extensions of the Open Inference Protocol on the running platform, as NVIDIA's client uses
them, unmodified.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.router.open_inference.management import EXTENSIONS
from stellwerk.client import connect
from tests.journey.stack import Platform, eventually

PROGRAM = Path(__file__).parents[1] / "integration" / "triton_extensions.py"
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
MODEL = "extended"


@pytest.fixture(scope="session")
def stored(platform: Platform, iris: tuple[Any, Any, Any]) -> str:
    """A model of these tests' own, in two versions."""
    model, X, _ = iris
    with connect(platform.http, platform.token) as client:
        client.models.put(model, MODEL, example=X[:2])
        return str(client.models.put(model, MODEL, example=X[:2]).name)


@pytest.fixture(scope="session")
def seen(platform: Platform, stored: str) -> dict[str, Any]:
    """What the client got over HTTP and gRPC."""
    with connect(platform.http, platform.token) as client:
        client.runtime.model(MODEL).predict(ROWS)
    command = [
        sys.executable,
        str(PROGRAM),
        platform.http.removeprefix("http://"),
        platform.grpc,
        MODEL,
    ]
    environment = {**os.environ, "TOKEN": platform.token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def index_of(found: Any) -> dict[tuple[str, str], str]:
    entries = found["models"] if isinstance(found, dict) else found
    return {(entry["name"], entry["version"]): entry.get("state", "") for entry in entries}


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_what_is_offered_is_what_the_server_says(seen: dict[str, Any], transport: str) -> None:
    assert seen[transport]["server"]["extensions"] == list(EXTENSIONS)
    assert not {"system_shared_memory", "cuda_shared_memory", "sequence"} & set(EXTENSIONS)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_index_shows_a_model_loaded_and_let_go(seen: dict[str, Any], transport: str) -> None:
    loaded, let_go = index_of(seen[transport]["loaded"]), index_of(seen[transport]["let_go"])

    assert loaded[(MODEL, "2")] == "READY"
    assert let_go[(MODEL, "2")] == ""
    assert (MODEL, "1") not in loaded


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_statistics_count_the_rows_of_what_was_asked(seen: dict[str, Any], transport: str) -> None:
    (stats,) = seen[transport]["statistics"]["model_stats"]

    assert (stats["name"], stats["version"]) == (MODEL, "2")
    assert int(stats["inference_count"]) == 2
    assert int(stats["execution_count"]) == 1
    assert int(stats["inference_stats"]["success"]["count"]) == 1
    assert int(stats["inference_stats"]["compute_infer"]["ns"]) > 0
    assert int(stats["memory_usage"][0]["byte_size"]) > 0
    assert MODEL in {stats["name"] for stats in seen[transport]["all_statistics"]["model_stats"]}


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_configuration_says_what_the_model_takes(seen: dict[str, Any], transport: str) -> None:
    config = seen[transport]["config"]
    config = config.get("config", config)

    assert (config["name"], config["backend"]) == (MODEL, "skops")
    assert config["max_batch_size"] > 0
    (given,) = config["input"]
    assert (given["name"], given["data_type"], [int(size) for size in given["dims"]]) == (
        "X",
        "TYPE_FP64",
        [4],
    )


def test_settings_are_changed_and_come_back(seen: dict[str, Any]) -> None:
    http = seen["http"]

    assert http["logs"] == http["logs_back"]
    assert (http["logs"]["log_verbose_level"], http["logs_changed"]["log_verbose_level"]) == (0, 1)
    assert (http["logs"]["log_warning"], http["logs_changed"]["log_warning"]) == (True, False)
    assert http["traces"] == http["traces_of_model"] == http["traces_back"]
    assert (http["traces"]["trace_level"], http["traces_changed"]["trace_rate"]) == (["OFF"], "5")
    grpc = seen["grpc"]
    assert grpc["logs"] == grpc["logs_back"] != grpc["logs_changed"]
    assert grpc["traces_changed"]["settings"]["trace_rate"] == {"value": ["5"]}
    assert grpc["traces_back"]["settings"]["trace_rate"] == {"value": ["1"]}


def test_refusals_say_what_is_wrong(seen: dict[str, Any]) -> None:
    codes = {"http": ["404", "404", "404", "404", "501", "400", "501", "501", "501"]}
    words = {"404": "NOT_FOUND", "501": "UNIMPLEMENTED", "400": "INVALID_ARGUMENT"}
    codes["grpc"] = [f"StatusCode.{words[code]}" for code in codes["http"]]

    for transport, expected in codes.items():
        assert [text.partition(": ")[0] for text in seen[transport]["refused"]] == expected, seen[
            transport
        ]["refused"]


def test_no_request_fails_while_its_model_is_let_go_again_and_again(
    platform: Platform, stored: str
) -> None:
    failed: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with connect(platform.http, platform.token) as client:
            while not stop.is_set():
                try:
                    client.runtime.model(MODEL).predict(ROWS)
                except Exception as error:
                    failed.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        assert platform.call("POST", f"/v2/repository/models/{MODEL}/unload", {})[0] == 200
    stop.set()
    for thread in threads:
        thread.join(30)

    assert failed == []


def test_a_caller_sees_the_models_of_its_own_buckets_alone(platform: Platform, stored: str) -> None:
    platform.call("POST", "/v1/buckets", {"name": "buckets/fenced"})
    token = platform.token_for("caller", "fenced")

    status, index = platform.call("POST", "/v2/repository/index", {}, token=token)
    assert (status, index) == (200, [])
    assert platform.call("GET", "/v2/models/stats", token=token) == (200, {"model_stats": []})
    for method, path, body in [
        ("GET", f"/v2/models/{MODEL}/stats", None),
        ("GET", f"/v2/models/{MODEL}/config", None),
        ("POST", "/v2/repository/index", {"repository_name": "default"}),
        ("POST", f"/v2/repository/models/{MODEL}/load", {}),
        ("POST", "/v2/repository/models/fenced:x/load", {}),
        ("GET", "/v2/logging", None),
    ]:
        assert platform.call(method, path, body, token=token)[0] == 403, path


def test_an_unknown_version_is_not_ready_and_not_found(platform: Platform, stored: str) -> None:
    for version in ("abc", "9", "0", "x.y"):
        status, answer = platform.call("GET", f"/v2/models/{MODEL}/versions/{version}/ready")
        assert (status, answer["ready"]) == (404, False)
    for part in ("", "/config", "/stats"):
        assert platform.call("GET", f"/v2/models/{MODEL}/versions/abc{part}")[0] == 404
        assert platform.call("GET", f"/v2/models/nobody{part}")[0] == 404


def test_changes_of_settings_are_in_the_ledger(platform: Platform) -> None:
    assert platform.call("POST", "/v2/logging", {"log_verbose_level": 0})[0] == 200

    def recorded() -> bool:
        _, answer = platform.call("GET", "/v1/audit/records?pageSize=200")
        return any(
            r["method"].endswith("/LogSettings") and r["outcome"] == "OK" for r in answer["records"]
        )

    eventually(recorded, 10, "the change is recorded")
