"""A new version takes over while callers predict: nobody's call fails, and every answer says which
version gave it.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor

from stellwerk.client import connect
from tests.journey.doors import Answer, Door, door_of
from tests.journey.stack import Platform

CALLERS = 4


def store(platform: Platform, name: str, constant: float) -> str:
    """Stores a model that answers nothing but this; returns its version."""
    model = DummyRegressor(strategy="constant", constant=constant).fit([[0.0]], [0.0])
    with connect(platform.http, platform.token) as client:
        return str(client.models.put(model, name, example=np.array([[0.0]])).version)


@dataclass(frozen=True)
class Heard:
    """An answer, and when its call was made and answered."""

    sent: float
    heard: float
    answer: Answer


class Callers:
    """They ask all the time, through both doors."""

    def __init__(self, doors: list[Door], model: str, deadline: float = 20.0) -> None:
        self._asking, self.heard, self._deadline = True, list[Heard](), deadline
        self._tasks = [
            asyncio.create_task(self._ask(door, model)) for door in doors for _ in range(CALLERS)
        ]

    async def _ask(self, door: Door, model: str) -> None:
        while self._asking:
            sent = time.monotonic()
            answer = await door.infer(model, [[0.0]], deadline=self._deadline)
            self.heard.append(Heard(sent, time.monotonic(), answer))

    async def answered_by(self, version: str, times: int = 50) -> None:
        """Waits until `times` answers came from this version."""
        async with asyncio.timeout(20):
            while sum(one.answer.version == version for one in self.heard) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> list[Heard]:
        self._asking = False
        await asyncio.gather(*self._tasks)
        return self.heard


@pytest.mark.parametrize("kind", ["rest", "grpc"])
async def test_answers_say_which_version_gave_them(platform: Platform, kind: str) -> None:
    name = f"versions-{uuid.uuid4().hex[:8]}"
    first, second = store(platform, name, 1.0), store(platform, name, 2.0)

    async with door_of(platform, kind) as door:
        newest = await door.infer(name, [[0.0]])
        older = await door.infer(name, [[0.0]], version=first)

    assert (newest.values, newest.version) == ([2.0], second)
    assert (older.values, older.version) == ([1.0], first)


async def test_a_new_version_takes_over_without_a_failed_call(platform: Platform) -> None:
    name = f"rolling-{uuid.uuid4().hex[:8]}"
    values = {store(platform, name, 1.0): [1.0]}

    async with door_of(platform, "rest") as rest, door_of(platform, "grpc") as wire:
        callers = Callers([rest, wire], name)
        await callers.answered_by("1")
        for constant in (2.0, 3.0):
            version = await asyncio.to_thread(store, platform, name, constant)
            values[version] = [constant]
            await callers.answered_by(version)
        heard = await callers.stop()

    assert {one.answer.status for one in heard} == {200}
    assert all(one.answer.values == values[one.answer.version] for one in heard)
    for version in ("2", "3"):
        first = min(one.heard for one in heard if one.answer.version == version)
        after = {one.answer.version for one in heard if one.sent > first}
        assert min(after) >= version, (
            "who asks after the first answer of a version gets no older one"
        )


def slow_to_load(constant: float, seconds: float) -> Any:
    """A model that answers nothing but this and takes so long to load; its class travels with
    it.
    """

    class Slow(BaseEstimator):  # type: ignore[misc]
        n_features_in_ = 1

        def __setstate__(self, state: dict[str, float]) -> None:
            threading.Event().wait(state["seconds"])
            self.__dict__.update(state)

        def predict(self, X: Any) -> Any:
            return np.full(len(X), self.constant)

    model = Slow()
    model.constant, model.seconds = constant, seconds
    return model


async def test_a_version_that_loads_slowly_keeps_nobody_waiting(lab: Platform) -> None:
    name, example = f"slow-{uuid.uuid4().hex[:8]}", np.array([[0.0]])

    def store_slow(constant: float, seconds: float) -> None:
        with connect(lab.http, lab.token) as client:
            client.models.put(
                slow_to_load(constant, seconds), name, format="pickle", unsafe=True, example=example
            )

    await asyncio.to_thread(store_slow, 1.0, 0.0)
    async with door_of(lab, "rest") as rest, door_of(lab, "grpc") as wire:
        assert (await rest.infer(name, [[0.0]])).values == [1.0]
        callers = Callers([rest, wire], name, deadline=1.0)
        await callers.answered_by("1")
        await asyncio.to_thread(store_slow, 2.0, 3.0)
        await callers.answered_by("2")
        heard = await callers.stop()

    assert {one.answer.status for one in heard} == {200}
    first = min(one.heard for one in heard if one.answer.version == "2")
    assert {one.answer.version for one in heard if one.sent > first} == {"2"}
