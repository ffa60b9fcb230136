"""Slots, queues and turns: a lone call waits for nobody, what waits together is called together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import threadpoolctl

from services.runtime.batching.scheduler import Scheduler
from services.runtime.execution.batch_call import BatchOutcome
from services.runtime.execution.workers import NativeThreadLimit
from services.runtime.formats.port import Array, Arrays, LoadedModel
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.request import Request
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.work import Inbox


class Gated(LoadedModel):
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


class Bench:
    """A scheduler and what it answered."""

    def __init__(self, slots: int, **policy: Any) -> None:
        self.scheduler = Scheduler(slots, max_batch_rows=100)
        self.policy = BatchPolicy(**policy)
        self.outcomes: list[BatchOutcome] = []

    def inbox(self, model: Any, name: str = models.NAME) -> Inbox:
        version = models.version("skops", name=name)
        return Inbox(version, self.policy, model=model, answered=self.outcomes.append)

    def submit(self, inbox: Inbox, *rows: int, **fields: Any) -> list[Request]:
        requests = [inbox.rows(*[0.0] * count, **fields) for count in rows]
        self.scheduler.submit(inbox.queue, requests)
        return requests

    async def answered(self, count: int) -> None:
        await eventually(lambda: sum(len(outcome.requests) for outcome in self.outcomes) == count)
        await self.scheduler.close()


async def entered(model: Gated) -> None:
    assert await asyncio.to_thread(model.entered.wait, 10)


async def test_what_arrives_together_or_waits_together_is_one_call() -> None:
    bench, model = Bench(1), Gated()
    inbox = bench.inbox(model)
    bench.submit(inbox, 1, 1)
    bench.submit(inbox, 1)
    await entered(model)
    for _ in range(5):
        bench.submit(inbox, 2)
    model.gate.set()

    await bench.answered(8)

    assert model.notes == [3, 10]
    assert [len(outcome.requests) for outcome in bench.outcomes] == [3, 5]
    assert [outcome.results[0].rows for outcome in bench.outcomes] == [3, 10]


async def test_slots_bound_what_runs_at_once() -> None:
    bench, model = Bench(2, max_rows=1), Gated()
    bench.submit(bench.inbox(model), 1, 1, 1, 1, 1)
    await eventually(lambda: len(model.notes) == 2)

    assert bench.scheduler.running == 2

    model.gate.set()
    await bench.answered(5)
    assert bench.scheduler.running == 0


async def test_queues_take_turns() -> None:
    notes: list[Any] = []
    bench, busy, a, b = Bench(1, max_rows=1), Gated(), Gated("a", notes), Gated("b", notes)
    bench.submit(bench.inbox(busy), 1)
    await entered(busy)
    bench.submit(bench.inbox(a), 1, 1, 1)
    bench.submit(bench.inbox(b), 1, 1)
    for model in (busy, a, b):
        model.gate.set()

    await bench.answered(6)

    assert [name for name, _ in notes] == ["a", "b", "a", "b", "a"]


async def test_a_priority_is_served_before_what_came_earlier() -> None:
    bench, model = Bench(1, priority_levels=2, default_priority=2, max_rows=1), Gated()
    inbox = bench.inbox(model)
    bench.submit(inbox, 1)
    await entered(model)
    bench.submit(inbox, 2)
    bench.submit(inbox, 3, priority=1)
    model.gate.set()

    await bench.answered(3)

    assert model.notes == [1, 3, 2]


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_rest_of_a_cut_waits_unless_a_slot_is_free(slots: int) -> None:
    bench, model = Bench(slots, preferred=(4,)), Gated()
    bench.submit(bench.inbox(model), 1, 1, 1, 1, 1, 1)
    await eventually(lambda: len(model.notes) == slots)

    assert sorted(model.notes) == [2, 4][-slots:]

    model.gate.set()
    await bench.answered(6)
    assert sorted(model.notes) == [2, 4]


async def test_a_lone_request_is_called_when_its_delay_is_over() -> None:
    bench, model = Bench(2, max_delay=0.02), Gated()
    model.gate.set()
    (request,) = bench.submit(bench.inbox(model), 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.scheduler.running == 0

    await bench.answered(1)

    assert bench.outcomes[0].started >= request.work.received + 0.02


async def test_requests_that_come_before_the_delay_is_over_share_the_call() -> None:
    bench, model = Bench(2, max_delay=5.0, preferred=(3,)), Gated()
    model.gate.set()
    inbox = bench.inbox(model)
    bench.submit(inbox, 1)
    await asyncio.sleep(0)
    bench.submit(inbox, 1, 1)

    await bench.answered(3)

    assert model.notes == [3]


async def test_a_caller_that_went_away_is_not_computed() -> None:
    bench, model = Bench(1, max_rows=1), Gated()
    inbox = bench.inbox(model)
    bench.submit(inbox, 1)
    await entered(model)
    (gone,) = bench.submit(inbox, 5)
    bench.submit(inbox, 2)
    gone.open = False
    model.gate.set()

    await bench.answered(2)

    assert model.notes == [1, 2]


async def test_a_request_whose_deadline_passed_while_it_waited_is_not_started() -> None:
    bench, model = Bench(1, max_rows=1), Gated()
    inbox = bench.inbox(model)
    bench.submit(inbox, 1)
    await entered(model)
    bench.submit(inbox, 5, received=0.0, timeout_ms=1)
    model.gate.set()

    await bench.answered(1)

    assert model.notes == [1]
    assert not inbox.queue.waiting


async def test_an_objective_bounds_the_rows_of_a_call() -> None:
    bench = Bench(1, objective=0.005)
    model = Gated()
    model.call = lambda method, inputs: (  # type: ignore[method-assign]
        model.notes.append(len(inputs["x"]))
        or threading.Event().wait(0.002 * len(inputs["x"]))
        or {"y": inputs["x"]}
    )
    inbox = bench.inbox(model)

    bench.submit(inbox, *[1] * 40)
    await bench.answered(40)

    assert model.notes[0] == 1
    assert max(model.notes) <= 8 and len(model.notes) < 40


async def test_a_model_is_held_while_it_is_called() -> None:
    bench, model, held = Bench(1), Gated(), []
    inbox = bench.inbox(model)
    inbox.queue.hold = lambda: held.append(1)
    inbox.queue.let_go = lambda: held.pop()
    bench.submit(inbox, 1)
    await entered(model)

    assert held == [1]

    model.gate.set()
    await bench.answered(1)
    assert held == []


async def test_an_answer_that_cannot_be_handed_on_does_not_stop_the_scheduler() -> None:
    bench, model = Bench(1), Gated()
    model.gate.set()

    def fail(outcome: BatchOutcome) -> None:
        raise RuntimeError

    bad, good = bench.inbox(model), bench.inbox(model)
    bad.queue.answered = fail
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: errors.append(context["exception"])
    )
    try:
        bench.submit(bad, 1)
        bench.submit(good, 1)
        await bench.answered(1)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)

    assert [type(error) for error in errors] == [RuntimeError]


async def test_closing_waits_for_what_runs() -> None:
    bench, model = Bench(1), Gated()
    bench.submit(bench.inbox(model), 1)
    await entered(model)

    closing = asyncio.create_task(bench.scheduler.close())
    await asyncio.sleep(0)
    assert not closing.done()
    model.gate.set()
    await asyncio.wait_for(closing, 10)

    assert len(bench.outcomes) == 1


def test_worker_threads_bound_the_libraries_they_call() -> None:
    limits, seen = NativeThreadLimit(1), set[int]()

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
