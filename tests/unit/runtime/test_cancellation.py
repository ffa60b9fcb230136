"""What nobody waits for any more is not worked on, and its neighbours do not notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from services.chassis.broker.port import Message
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.tensors import from_numpy
from stellwerk.wire.topology import WORK_CANCELLED
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.runtime_inside import Rig, rig

NAME = "buckets/default/models/counter/versions/1"


class Slow:
    """Counts without end, a number for each turn of the gate; `predict` waits for the gate and
    echoes.
    """

    memory_bytes, device, streams = 1, "cpu", frozenset({"count"})

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.called: list[int] = []
        self.given = 0
        self.ended = threading.Event()

    def call(self, method: str, inputs: dict[str, Any]) -> dict[str, Any]:
        self.called.append(int(inputs["X"][0, 0]))
        self.gate.acquire(timeout=10)
        return {"y": inputs["X"]}

    def stream(self, method: str, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            while True:
                self.gate.acquire(timeout=10)
                self.given += 1
                yield {"y": inputs["X"]}
        finally:
            self.ended.set()

    def close(self) -> None: ...


def item(name: str, value: float, **fields: Any) -> work_pb2.WorkItem:
    tensor = from_numpy("X", np.array([[value]]))
    return work_pb2.WorkItem(
        id=name, method=fields.pop("method", "predict"), inputs=[tensor], timeout_ms=9000, **fields
    )


async def cancel(made: Rig, *ids: str) -> None:
    await made.broker.subscribe(WORK_CANCELLED, made.consumer.cancel)
    await made.router.publish_event(
        WORK_CANCELLED, Message(work_pb2.Cancellation(ids=ids).SerializeToString())
    )


async def test_a_stream_stops_when_its_caller_is_gone(tmp_path: Path) -> None:
    model = Slow()
    async with rig(tmp_path, model=model) as made:
        version = made.add(models.version("pickle", name=NAME))
        await made.serve(version)
        asking = asyncio.create_task(made.ask(version, item("1", 7, method="count", stream=True)))
        for _ in range(3):
            model.gate.release()
        await eventually(lambda: len(made.replies) >= 3)

        await cancel(made, "1", "unknown")
        (last,) = await asking
        model.gate.release()

        assert last.error.reason == "CANCELLED"
        await eventually(model.ended.is_set)
        assert model.given <= 5


async def test_a_request_that_waits_is_never_begun(tmp_path: Path) -> None:
    model = Slow()
    async with rig(tmp_path, model=model, slots=1) as made:
        version = made.add(models.version("pickle", name=NAME, batching="off"))
        await made.serve(version)
        asking = asyncio.create_task(made.ask(version, item("1", 1), item("2", 2), item("3", 3)))
        await eventually(lambda: len(model.called) == 1)

        await cancel(made, "2")
        await eventually(lambda: made.answers["2"].done())
        model.gate.release(2)
        replies = await asking

        assert [reply.error.reason for reply in replies] == ["", "CANCELLED", ""]
        assert model.called == [1, 3]
