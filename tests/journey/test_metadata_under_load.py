"""Metadata is answered while every slot works as hard as it can: models compute beside the
services, never in them, so that a process of somebody else would be as much in the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from stellwerk.client import connect
from tests.journey.doors import RestDoor, door_of
from tests.journey.probe import SLOTS
from tests.journey.stack import Platform, soon

PER_SECOND, CALLS = 200, 300
BUSY_SECONDS = 4.0
MODEL = "burner"
# As many threads of another process compute what the models do.
_OTHER = """
import sys, threading, numpy
def burn():
    matrix = numpy.random.default_rng(1).random((400, 400))
    while True:
        matrix = matrix @ matrix
        matrix /= matrix.max()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=burn, daemon=True).start()
print("it computes", flush=True)
sys.stdin.read()
"""
# Tries in which a promise must be seen once: a stall of the machine is not the platform's fault.
TRIES = 3


def burner() -> Any:
    """A model that multiplies matrices for as many seconds as its input says; its class travels
    with it.
    """

    class Burner(BaseEstimator):  # type: ignore[misc]
        n_features_in_ = 1

        def predict(self, X: Any) -> Any:
            until, matrix = (
                time.monotonic() + float(X[0, 0]),
                np.random.default_rng(1).random((400, 400)),
            )
            while time.monotonic() < until:
                matrix = matrix @ matrix
                matrix /= matrix.max()
            return np.asarray(X)[:, 0]

    return Burner()


@pytest.fixture(scope="module")
def burning(lab: Platform) -> str:
    with connect(lab.http, lab.token) as client:
        client.models.put(
            burner(),
            MODEL,
            format="pickle",
            unsafe=True,
            example=np.array([[0.01]]),
            options={"batching": "off"},
        )
        client.runtime.model(MODEL).predict(np.array([[0.01]]))
    return MODEL


async def slow_ones(rest: RestDoor) -> float:
    """Asks PER_SECOND times a second, answered or not; returns the seconds for 99 of 100 to be
    answered.
    """

    loop = asyncio.get_running_loop()

    async def one(moment: float) -> float:
        its_time = loop.create_future()
        loop.call_at(moment, its_time.set_result, None)
        await its_time
        status, _, _ = await rest.get(f"/v2/models/{MODEL}")
        assert status == 200
        return loop.time() - moment

    start = loop.time()
    took = await asyncio.gather(*[one(start + number / PER_SECOND) for number in range(CALLS)])
    return sorted(took)[int(0.99 * CALLS)]


@contextlib.asynccontextmanager
async def other_process() -> AsyncIterator[None]:
    """Keeps a process computing that has nothing to do with the platform."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OTHER,
        str(SLOTS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def test_metadata_hardly_waits_for_models(lab: Platform, burning: str) -> None:
    async with door_of(lab, "rest") as rest:
        assert isinstance(rest, RestDoor)
        await slow_ones(rest)
        found: list[tuple[float, float]] = []
        while not found or found[-1][1] > 3 * found[-1][0]:
            assert len(found) < 3, f"seconds beside another process and models: {found}"
            async with other_process():
                beside = await slow_ones(rest)
            busy = [asyncio.create_task(rest.infer(MODEL, [[BUSY_SECONDS]])) for _ in range(SLOTS)]
            await soon(
                lambda: (
                    lab.metric("stellwerk_in_flight", f"buckets/default/models/{MODEL}/versions/1")
                    == SLOTS
                ),
                5,
                "it computes",
            )
            loaded = await slow_ones(rest)
            busy_all_the_time = not any(task.done() for task in busy)
            assert {answer.status for answer in await asyncio.gather(*busy)} == {200}
            found.append((beside, loaded if busy_all_the_time else math.inf))
