"""One request id and one trace id join the log lines of all five services."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stellwerk.client import connect
from tests.journey.stack import Platform, eventually

SERVICES = {"api_gateway", "router", "runtime", "repository", "controlplane"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    # The exchange of an API key for a token is a matter of debugging.
    folder, options = tmp_path_factory.mktemp("logs"), ["--log-level", "debug"]
    running = Platform(folder, broker="pull", runtimes=1, options=options)
    yield running
    running.stop()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def joined(line: dict[str, Any], field: str) -> list[str]:
    """The ids of a line, whether it stands for one call or for several."""
    ids = line.get(f"{field}s", [line.get(field)])
    assert isinstance(ids, list)
    return ids


INFER = {"inputs": [{"name": "X", "datatype": "FP64", "shape": [1, 4], "data": [5, 3, 1, 0]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/buckets/default/models/{model}:predict", {"instances": [[5.0, 3.0, 1.0, 0.0]]}),
        ("/v2/models/{model}/infer", INFER),
    ],
    ids=["transcoded", "open_inference"],
)
def test_a_prediction_is_found_in_the_log_of_every_service(
    platform: Platform,
    iris: tuple[Any, np.ndarray[Any, Any], Any],
    path: str,
    body: dict[str, Any],
) -> None:
    model, trace_id = f"iris-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    with connect(platform.http, platform.token) as client:
        client.models.put(iris[0], model, example=iris[1][:2])
    _, key = platform.call("POST", "/v1/principals/admin/keys", {"displayName": model})

    # A new model and a new key: the router asks the repository, the gateway the control plane.
    status, headers, data = platform.raw(
        "POST",
        path.format(model=model),
        json.dumps(body).encode(),
        token=key["secret"],
        X_Request_Id=f"call-of-{model}",
        Traceparent=f"00-{trace_id}-b7ad6b7169203331-01",
    )

    assert (status, headers["x-request-id"]) == (200, f"call-of-{model}"), data

    def services(field: str, wanted: str) -> set[str]:
        written = lines(platform.log_path)
        return {line["service"] for line in written if wanted in joined(line, field)}

    def complete() -> bool:
        return services("request_id", f"call-of-{model}") == SERVICES

    eventually(complete, 5, "lines of the request in the log of every service")
    assert services("trace_id", trace_id) == SERVICES
