"""What is answered is freed at once, however it ended: the collector of cycles comes late, and
until then every message would keep its tensors.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.chassis.broker.port import Message
from services.chassis.broker.received import Received
from services.runtime.execution.batch_call import BatchResult
from services.runtime.requests.request import Group, Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.topology import WORK_CANCELLED
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.grouped_work import Batch, Call, Form, cancellation, envelope
from tests.fakes.runtime_inside import Rig, member_id, rig
from tests.unit.runtime.test_groups import Model

KINDS = (WorkMessage, Request, Group, BatchResult, Received)


class World:
    """A runtime that serves one model, and work that comes as items or as groups."""

    def __init__(self, made: Rig, model: Model, version: repository_pb2.ModelVersion) -> None:
        self.made = made
        self.model = model
        self.version = version
        self.grouped = False

    def work(self, *values: int, timeout_ms: int = 60_000, **form: Any) -> work_pb2.WorkEnvelope:
        calls = [Call(value, timeout_ms) for value in values]
        return envelope([Batch(Form(**form), calls)], "work", grouped=self.grouped)[0]

    async def ask(self, work: work_pb2.WorkEnvelope) -> set[str]:
        """The reasons of the errors that came, and "" where there was an answer."""
        return {reply.error.reason for reply in await self.made.ask_all(self.version, work)}


async def good(world: World) -> None:
    assert await world.ask(world.work(1, 2, 3)) == {""}


async def some_raise(world: World) -> None:
    assert await world.ask(world.work(1, 13, 3)) == {"", "MODEL_FAILED"}


async def invalid(world: World) -> None:
    work = world.work(1, 2)
    for form in [*work.items, *(group.form for group in work.groups)]:
        form.inputs[0].shape[0] = 7
    assert await world.ask(work) == {"INVALID_INPUT"}


async def unknown_output(world: World) -> None:
    assert await world.ask(world.work(1, 2, outputs=("nothing",))) == {"INVALID_INPUT"}


async def streamed(world: World) -> None:
    work = world.work(1, method="count")
    work.items[0].stream = True
    assert await world.ask(work) == {""}


async def late(world: World) -> None:
    world.model.gate.clear()
    assert await world.ask(world.work(1, 2, timeout_ms=50)) == {"DEADLINE_PASSED"}
    world.model.gate.set()


async def late_for_the_load(world: World) -> None:
    world.made.cache.discard(world.version.name)
    world.model.gate.clear()
    assert await world.ask(world.work(1, 2, timeout_ms=50)) == {"DEADLINE_PASSED"}
    world.model.gate.set()


async def some_leave(world: World) -> None:
    work = world.work(1, 2, 3)
    world.model.gate.clear()
    world.model.calls.clear()
    answers = world.made.expect(work)
    await world.made.send(world.version, work.SerializeToString())
    await eventually(lambda: world.model.calls)
    gone = cancellation([member_id("work-0", 0), member_id("work-0", 2)])
    await world.made.router.publish_event(WORK_CANCELLED, Message(gone.SerializeToString()))
    await asyncio.wait([answers[0], answers[2]])
    world.model.gate.set()
    assert not (await answers[1]).HasField("error")


@pytest.mark.parametrize("grouped", [False, True], ids=["items", "group"])
@pytest.mark.parametrize(
    "end",
    [good, some_raise, invalid, unknown_output, streamed, late, late_for_the_load, some_leave],
)
async def test_what_is_answered_is_freed_at_once(
    tmp_path: Path, end: Callable[[World], Awaitable[None]], grouped: bool
) -> None:
    model = Model()
    async with rig(tmp_path, model=model) as made:
        version = made.add(models.version("skops"))
        await made.serve(version)
        await made.broker.subscribe(WORK_CANCELLED, made.consumer.cancel)
        world = World(made, model, version)
        await end(world)
        world.grouped = grouped
        gc.collect()
        # What a test that failed left behind.
        others = {id(one) for one in gc.get_objects() if type(one) in KINDS}
        gc.disable()
        try:
            for _ in range(3):
                await end(world)
            # It keeps what a log writes: the exceptions.
            made.log.lines.clear()
            await eventually(lambda: others.issuperset(alive()))
        finally:
            gc.enable()


def alive() -> list[int]:
    return [id(one) for one in gc.get_objects() if type(one) in KINDS]
