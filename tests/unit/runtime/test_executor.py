"""Slots, lanes and deadlines: a lone call waits for nobody, what waits together is called together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import threadpoolctl

from services.runtime.batching import Request
from services.runtime.executor import Executor
from services.runtime.formats.port import Array, Arrays
from services.runtime.threads import ThreadLimits
from services.wire.errors import DeadlinePassed


class Gated:
    """A model that waits for a gate and notes the rows of each call."""

    device = "cpu"
    memory_bytes = 1

    def __init__(self, name: str = "", notes: list[Any] | None = None) -> None:
        self.name = name
        self.notes: list[Any] = notes if notes is not None else []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        self.notes.append((self.name, len(inputs["x"])) if self.name else len(inputs["x"]))
        self.entered.set()
        assert self.gate.wait(10)
        return {"y": inputs["x"]}

    def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def request(rows: int = 1, deadline: float = float("inf")) -> Request:
    return Request("r", "predict", {"x": np.zeros((rows, 1))}, received=100.0, deadline=deadline)


async def entered(model: Gated) -> None:
    assert await asyncio.to_thread(model.entered.wait, 10)


async def test_what_arrives_together_or_waits_together_is_one_call() -> None:
    executor, model = Executor(1, max_batch_rows=100), Gated()
    first = [executor.submit("m", model, request(), rowwise=True) for _ in range(3)]
    await entered(model)
    second = [executor.submit("m", model, request(2), rowwise=True) for _ in range(5)]
    model.gate.set()

    results = await asyncio.gather(*first, *second)

    assert model.notes == [3, 10]
    assert all(result.answer.error is None and result.compute_ns > 0 for result in results)
    await executor.close()


async def test_a_batch_is_bounded_in_rows_but_a_large_request_runs_alone() -> None:
    executor, model = Executor(1, max_batch_rows=4), Gated()
    model.gate.set()

    await asyncio.gather(*(executor.submit("m", model, request(rows), rowwise=True) for rows in (3, 9, 1, 1)))

    assert sorted(model.notes) == [1, 4, 9]
    await executor.close()


async def test_what_cannot_be_joined_runs_one_by_one() -> None:
    executor, model = Executor(1, max_batch_rows=100), Gated()
    model.gate.set()

    await asyncio.gather(*(executor.submit("m", model, request(), rowwise=False) for _ in range(3)))

    assert model.notes == [1, 1, 1]
    await executor.close()


async def test_slots_bound_what_runs_at_once() -> None:
    executor, model = Executor(2, max_batch_rows=1), Gated()
    futures = [executor.submit("m", model, request(), rowwise=False) for _ in range(5)]
    await entered(model)
    await asyncio.sleep(0)

    assert executor.running == 2

    model.gate.set()
    await asyncio.gather(*futures)
    assert executor.running == 0
    await executor.close()


async def test_lanes_take_turns() -> None:
    notes: list[Any] = []
    busy, a, b = Gated(), Gated("a", notes), Gated("b", notes)
    executor = Executor(1, max_batch_rows=1)
    blocked = executor.submit("busy", busy, request(), rowwise=False)
    await entered(busy)
    waiting = [executor.submit("a", a, request(), rowwise=False) for _ in range(3)]
    waiting += [executor.submit("b", b, request(), rowwise=False) for _ in range(2)]
    for model in (busy, a, b):
        model.gate.set()

    await asyncio.gather(blocked, *waiting)

    assert [name for name, _ in notes] == ["a", "b", "a", "b", "a"]
    await executor.close()


async def test_a_request_whose_deadline_passed_while_it_waited_is_not_started() -> None:
    clock = Clock()
    executor, model = Executor(1, max_batch_rows=1, clock=clock), Gated()
    first = executor.submit("m", model, request(), rowwise=True)
    await entered(model)
    late = executor.submit("m", model, request(deadline=101.0), rowwise=True)
    clock.now = 102.0
    model.gate.set()

    result = await late

    assert isinstance(result.answer.error, DeadlinePassed)
    assert result.queue_ns == 2_000_000_000
    await first
    assert model.notes == [1]
    await executor.close()


async def test_a_caller_that_went_away_is_not_computed() -> None:
    executor, model = Executor(1, max_batch_rows=1), Gated()
    first = executor.submit("m", model, request(), rowwise=False)
    await entered(model)
    executor.submit("m", model, request(), rowwise=False).cancel()
    last = executor.submit("m", model, request(), rowwise=False)
    model.gate.set()

    await asyncio.gather(first, last)

    assert model.notes == [1, 1]
    await executor.close()


def test_worker_threads_bound_the_libraries_they_call() -> None:
    limits, seen = ThreadLimits(1), set[int]()

    def work() -> None:
        limits.apply()
        seen.update(pool["num_threads"] for pool in threadpoolctl.threadpool_info())

    with threadpoolctl.threadpool_limits(2):
        pass  # gives up the control that another test may have taken
    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as slot:
        loading.submit(limits.refresh).result()
        slot.submit(work).result()
    threadpoolctl.threadpool_limits(2)

    assert seen == {1}
