"""Decoupled methods: each answer leaves when it is there, the last reply has none, and nobody
computes for nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from services.runtime.formats.port import Array, Arrays
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.tensors import to_numpy
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.runtime_inside import Rig, rig
from tests.fakes.work import item


class Counter:
    """Counts down from its input over a stream; fails after 13. `step` is waited for before each
    answer if given.
    """

    device, memory_bytes = "cpu", 1
    streams = frozenset({"count"})

    def __init__(self, step: threading.Semaphore | None = None) -> None:
        self.step = step
        self.given = 0
        self.closed = threading.Event()

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        assert method == "count"
        try:
            for number in range(int(inputs["x"].ravel()[0]), 0, -1):
                if self.step is not None:
                    assert self.step.acquire(timeout=10)
                if number == 13:
                    raise ValueError("thirteen")
                self.given += 1
                yield {"y": np.array([number]), "z": np.array([-number])}
        finally:
            self.closed.set()

    def close(self) -> None: ...


def counting(made: Rig) -> repository_pb2.ModelVersion:
    return made.add(models.version("skops"))


def count(name: str, value: float, **fields: Any) -> work_pb2.WorkItem:
    fields.setdefault("stream", True)
    return item(name, [[value]], method=fields.pop("method", "count"), **fields)


def values(made: Rig, name: str) -> list[int]:
    return [int(to_numpy(r.outputs[0])[0]) for r in made.replies if r.id == name and r.more]


async def test_each_answer_leaves_when_it_is_there_and_the_last_reply_is_empty(
    tmp_path: Path,
) -> None:
    model = Counter(threading.Semaphore(0))
    async with rig(tmp_path, model=model) as made:
        version = counting(made)
        await made.serve(version)
        asked = asyncio.create_task(made.ask(version, count("1", 3)))

        for seen in range(1, 4):
            assert model.step is not None
            model.step.release()
            await eventually(lambda seen=seen: len(values(made, "1")) == seen)  # type: ignore[misc]
        (last,) = await asked

        assert values(made, "1") == [3, 2, 1]
        assert not last.more and not last.outputs and not last.HasField("error")
        assert last.leads and last.rows == 1
        await asyncio.wait_for(made.consumer.idle(), 5)
        assert await made.waiting(version) == 0


async def test_streams_and_calls_share_a_message(tmp_path: Path) -> None:
    async with rig(tmp_path, model=Counter()) as made:
        version = counting(made)
        await made.serve(version)

        streamed, plain, unary, picked, unknown = await made.ask(
            version,
            count("1", 2),
            count("2", 5, method="predict"),
            count("3", 2, stream=False),
            count("4", 2, outputs=["z"]),
            count("5", 2, outputs=["w"]),
        )

        assert values(made, "1") == [2, 1] and not streamed.outputs
        assert to_numpy(plain.outputs[0]).tolist() == [[5.0]] and not plain.more
        assert unary.error.reason == "UNIMPLEMENTED"
        assert values(made, "4") == [-2, -1] and not picked.HasField("error")
        assert unknown.error.reason == "INVALID_INPUT"


async def test_a_failure_ends_the_stream_after_what_was_good(tmp_path: Path) -> None:
    async with rig(tmp_path, model=Counter()) as made:
        version = counting(made)
        await made.serve(version)

        (last,) = await made.ask(version, count("1", 15))

        assert values(made, "1") == [15, 14]
        assert last.error.reason == "MODEL_FAILED" and not last.more


async def test_a_stream_that_nobody_waits_for_any_more_stops(tmp_path: Path) -> None:
    model = Counter()
    async with rig(tmp_path, model=model) as made:
        version = counting(made)
        await made.serve(version)
        asked = asyncio.create_task(made.ask(version, count("1", 1e9)))
        await eventually(lambda: len(values(made, "1")) > 0)

        await made.router.close()  # and with it its queue

        assert await asyncio.to_thread(model.closed.wait, 10)
        await asyncio.wait_for(made.consumer.idle(), 5)
        asked.cancel()


async def test_a_stream_ends_with_its_deadline_and_the_next_one_is_served(tmp_path: Path) -> None:
    model = Counter(threading.Semaphore(2))
    async with rig(tmp_path, slots=1, model=model) as made:
        version = counting(made)
        await made.serve(version)

        (last,) = await made.ask(version, count("1", 100, timeout_ms=100))
        assert model.step is not None
        model.step.release(10)
        (after,) = await made.ask(version, count("2", 1))

        assert last.error.reason == "DEADLINE_PASSED"
        assert values(made, "1") == [100, 99]
        assert not after.HasField("error") and values(made, "2") == [1]
        assert [reply.id for reply in made.replies if not reply.more] == ["1", "2"]


async def test_a_model_does_not_run_ahead_of_a_broker_that_takes_nothing(tmp_path: Path) -> None:
    model = Counter()
    async with rig(tmp_path, model=model) as made:
        version = counting(made)
        await made.serve(version)
        made.broker.gate.clear()
        asked = asyncio.create_task(made.ask(version, count("1", 1000)))
        await eventually(lambda: model.given >= 32)
        await asyncio.to_thread(model.closed.wait, 0.1)

        assert model.given <= 34

        made.broker.gate.set()
        await asked
        assert values(made, "1") == list(range(1000, 13, -1))
