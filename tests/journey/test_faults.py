"""What is promised when processes die: each comes back alone, and no caller is left hanging."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stellwerk.client import Client, connect_async, errors
from tests.journey.stack import Platform, eventually, serving_runtime

ROW = [[5.1, 3.5, 1.4, 0.2]]
SERVICES = ["api_gateway", "router", "runtime-1", "repository", "controlplane"]


def predicts(platform: Platform) -> bool:
    try:
        status, answer = platform.call(
            "POST", "/v1/buckets/default/models/iris:predict", {"instances": ROW}
        )
    except OSError:
        return False
    return status == 200 and len(answer["predictions"]) == 1


def test_up_shows_five_services(platform: Platform) -> None:
    assert set(platform.pids()) >= {*SERVICES, "runtime-2"}
    assert set(platform.ready) >= {"ready", "http", "grpc", "token_file"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_service_comes_back_alone(platform: Platform, iris_stored: str, name: str) -> None:
    eventually(lambda: predicts(platform), 15, "predictions flow before")
    before = platform.pids()

    killed = platform.kill(name)
    started = time.monotonic()

    eventually(
        lambda: platform.pids().get(name) not in (killed, None), 10, f"{name} has a new process"
    )
    eventually(
        lambda: predicts(platform), 10 - (time.monotonic() - started), "predictions flow again"
    )
    after = platform.pids()
    assert {key for key in before if before[key] != after[key]} == {name}
    eventually(lambda: ready(platform), 40, "everything is ready again")


def ready(platform: Platform) -> bool:
    try:
        status, answer = platform.call("GET", "/v1/status")
    except OSError:
        return False
    return status == 200 and bool(answer["ready"]) and len(answer["runtimes"]) == 2


async def test_no_call_hangs_when_a_runtime_is_killed_in_flight(
    platform: Platform, slow_model: str
) -> None:
    calls, deadline = 200, 20.0
    async with connect_async(f"grpc://{platform.grpc}", platform.token, timeout=deadline) as client:
        model = client.runtime.model(slow_model)
        await model.predict([[0.0]])
        serving = serving_runtime(platform, slow_model)

        async def one(number: int) -> str:
            started = time.monotonic()
            try:
                answer = await model.predict([[float(number)]])
            except errors.ServiceError as exc:
                outcome = exc.reason
            else:
                outcome = "right" if answer[0] == pytest.approx(number * 2.0) else "wrong"
            assert time.monotonic() - started < deadline + 1.0
            return outcome

        running = [asyncio.create_task(one(number)) for number in range(calls)]
        await asyncio.sleep(0.3)
        killed = platform.kill(serving)
        outcomes = Counter(await asyncio.wait_for(asyncio.gather(*running), deadline + 5))

    assert outcomes["wrong"] == 0
    assert sum(outcomes.values()) == calls
    assert outcomes["right"] >= calls * 0.9, outcomes
    eventually(
        lambda: platform.pids().get(serving) not in (killed, None), 10, "the runtime is back"
    )
    eventually(lambda: ready(platform), 40, "everything is ready again")


def test_a_frozen_runtime_is_left_out_and_comes_back(
    platform: Platform, sw: Client, iris_stored: str
) -> None:
    sw.runtime.model("iris").predict(ROW)
    frozen = serving_runtime(platform, "iris")
    pid = platform.pids()[frozen]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: not usable(platform, frozen), 15, "it is not chosen any more")
        eventually(lambda: predicts(platform), 25, "the other runtime answers")
        eventually(lambda: frozen not in names(platform), 35, "it is out of the fleet")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: usable(platform, frozen), 20, "it is back")


def runtimes(platform: Platform) -> list[dict[str, Any]]:
    _, answer = platform.call("GET", "/v1/runtimes")
    found: list[dict[str, Any]] = answer["runtimes"]
    return found


def names(platform: Platform) -> list[str]:
    return [runtime["name"].removeprefix("runtimes/") for runtime in runtimes(platform)]


def usable(platform: Platform, name: str) -> bool:
    return any(
        r["name"] == f"runtimes/{name}" and not r["stale"] and not r["draining"]
        for r in runtimes(platform)
    )


def test_a_crashed_runtime_leaves_the_fleet_within_five_seconds(platform: Platform) -> None:
    pid = platform.pids()["runtime-2"]
    instance = next(r["instance"] for r in runtimes(platform) if r["name"] == "runtimes/runtime-2")
    os.kill(pid, signal.SIGKILL)

    eventually(lambda: instance not in [r["instance"] for r in runtimes(platform)], 5, "it is gone")
    eventually(lambda: ready(platform), 40, "everything is ready again")


def test_no_secret_is_in_the_logs(platform: Platform) -> None:
    log = platform.log_path.read_text()
    secrets = [
        path.read_text().strip()
        for path in Path(platform.data_dir / "secrets").rglob("*")
        if path.is_file()
    ]

    secrets = [secret for secret in secrets if len(secret) >= 32]
    assert secrets
    for secret in [platform.token, *secrets]:
        assert secret not in log


def test_every_log_line_of_a_service_is_json(platform: Platform) -> None:
    lines = [line for line in platform.log_path.read_text().splitlines() if line.strip()]
    parsed = [json.loads(line) for line in lines if line.startswith("{")]

    assert len(parsed) > 20
    assert {"router", "repository", "controlplane"} <= {line.get("service") for line in parsed}
