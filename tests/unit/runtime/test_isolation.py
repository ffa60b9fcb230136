"""Neighbours in one message and one call: what is wrong with one concerns nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.tensors import to_numpy
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.runtime_inside import Rig, rig
from tests.fakes.work import item


class Squares(LoadedModel):
    """Squares; raises on rows that hold 13, waits for its gate on rows that hold 7, and notes each
    call's rows.
    """

    device, memory_bytes = "cpu", 1

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x: Any = inputs["x"]
        self.calls.append(len(x))
        if (x == 7).any():
            self.entered.set()
            assert self.gate.wait(10)
        if (x == 13).any():
            raise ValueError("thirteen")
        return {"y": x * x}

    def close(self) -> None: ...


def squares(made: Rig, **serving: Any) -> repository_pb2.ModelVersion:
    signature = models.method(
        "predict", [models.spec("x", "FP64", -1, 2)], [models.spec("y", "FP64", -1, 2)]
    )
    version = models.version("skops", signature)
    for field, value in serving.items():
        setattr(version.serving, field, value)
    return made.add(version)


def pair(name: str, value: float, rows: int = 1, **fields: Any) -> work_pb2.WorkItem:
    return item(name, np.full((rows, 2), float(value)), **fields)


async def test_of_64_calls_a_wrong_shape_and_a_raising_one_cost_nobody_else_anything(
    tmp_path: Path,
) -> None:
    model = Squares()
    async with rig(tmp_path, model=model) as made:
        version = squares(made)
        await made.serve(version)
        await made.ask(version, pair("warm", 0))
        model.calls.clear()
        items = [pair(str(number), 100 + number) for number in range(64)]
        items[20] = item("20", [[1.0, 2.0, 3.0]])
        items[41] = pair("41", 13)

        replies = await asyncio.gather(*(made.ask(version, one) for one in items))

        answers = {reply.id: reply for (reply,) in replies}
        good = [number for number in range(64) if number not in (20, 41)]
        assert [to_numpy(answers[str(n)].outputs[0]).tolist() for n in good] == [
            [[(100 + n) ** 2.0] * 2] for n in good
        ]
        assert answers["20"].error.reason == "INVALID_INPUT"
        assert answers["41"].error.reason == "MODEL_FAILED"
        assert len(model.calls) < 40


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([13, *range(20, 40)]), st.integers(1, 4)),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=25, deadline=None)
async def test_everybody_gets_its_own_rows(
    tmp_path_factory: Any, messages: list[list[tuple[int, int]]]
) -> None:
    async with rig(tmp_path_factory.mktemp("runtime"), model=Squares()) as made:
        version = squares(made)
        await made.serve(version)
        asked = [
            [pair(f"{number}.{index}", value, rows) for index, (value, rows) in enumerate(message)]
            for number, message in enumerate(messages)
        ]

        answered = await asyncio.gather(*(made.ask(version, *items) for items in asked))

        for message, replies in zip(messages, answered, strict=True):
            for (value, rows), reply in zip(message, replies, strict=True):
                if value == 13:
                    assert reply.error.reason == "MODEL_FAILED"
                else:
                    assert to_numpy(reply.outputs[0]).tolist() == [[value * value] * 2] * rows
                    assert reply.rows == rows


async def test_a_deadline_is_told_when_it_passes_while_a_call_runs_and_while_one_waits(
    tmp_path: Path,
) -> None:
    model = Squares()
    async with rig(tmp_path, slots=1, model=model) as made:
        version = squares(made)
        await made.serve(version)
        await made.ask(version, pair("warm", 0))
        started = time.monotonic()
        running = asyncio.create_task(made.ask(version, pair("1", 7, timeout_ms=150), pair("2", 3)))
        await asyncio.to_thread(model.entered.wait, 10)
        (waiting,) = await made.ask(version, pair("3", 5, timeout_ms=100))
        await made.answers["1"]
        told = time.monotonic() - started

        assert waiting.error.reason == made.answers["1"].result().error.reason == "DEADLINE_PASSED"
        assert 0.15 <= told < 1.0
        assert not made.answers["2"].done()

        model.gate.set()
        _, neighbour = await running
        assert to_numpy(neighbour.outputs[0]).tolist() == [[9.0, 9.0]]
        assert neighbour.leads and neighbour.batch_rows == 2
        await asyncio.wait_for(made.consumer.idle(), 5)
        assert [reply.id for reply in made.replies] == ["warm", "3", "1", "2"]
        assert 5 not in model.calls


async def test_a_message_whose_callers_all_gave_up_is_settled_while_its_call_still_runs(
    tmp_path: Path,
) -> None:
    model = Squares()
    async with rig(tmp_path, slots=1, model=model) as made:
        version = squares(made)
        await made.serve(version)
        await made.ask(version, pair("1", 7, timeout_ms=50))
        await asyncio.wait_for(made.consumer.idle(), 5)

        made.cache.discard(version.name)  # its last caller is gone, but it is being called
        assert made.scheduler.running == 1
        assert [users for _, users in made.cache.residents()] == [1]

        model.gate.set()
        await eventually(lambda: made.scheduler.running == 0)
        assert made.cache.residents() == []


async def test_the_replies_tell_how_the_calls_went(tmp_path: Path) -> None:
    model = Squares()
    async with rig(tmp_path, model=model) as made:
        version = squares(made)
        await made.serve(version)

        replies = await made.ask(version, pair("1", 1, rows=2), pair("2", 2, rows=3), pair("3", 13))

        assert [reply.rows for reply in replies] == [2, 3, 1]
        assert [reply.batch_rows for reply in replies] == [2, 2 + 3 - 2, 1]
        assert all(reply.leads for reply in replies)
        for reply in replies:
            assert reply.queue_ns > 0 and reply.compute_ns > 0 and reply.input_ns > 0


async def test_a_model_whose_owner_joins_none_is_called_for_each(tmp_path: Path) -> None:
    model = Squares()
    async with rig(tmp_path, model=model) as made:
        version = squares(made, max_batch_size=1)
        await made.serve(version)

        await made.ask(version, *(pair(str(number), number) for number in range(5)))

        assert model.calls == [1] * 5


async def test_rows_that_depend_on_the_batch_are_noticed_once_and_called_apart(
    tmp_path: Path,
) -> None:
    class Running(Squares):
        def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
            self.calls.append(len(inputs["x"]))
            return {"y": np.cumsum(inputs["x"], axis=0)}

    model = Running()
    async with rig(tmp_path, model=model) as made:
        version = squares(made)
        version.format = "onnx"
        await made.serve(version)

        for _ in range(2):
            replies = await made.ask(version, *(pair(str(number), number) for number in range(5)))
            assert [to_numpy(reply.outputs[0])[0, 0] for reply in replies] == [0, 1, 2, 3, 4]

        assert made.log.events().count("joining_refused") == 1
        assert made.sample("stellwerk_model_joining_refused_total", model_version=version.name) == 1
        assert model.calls[-5:] == [1] * 5
