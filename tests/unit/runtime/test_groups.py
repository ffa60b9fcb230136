"""Groups at a runtime: one call and one reply for all members, and what parts them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.chassis.broker.port import Delivery, Message
from services.chassis.broker.pull.hub_broker import HubBroker
from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.tensors import to_numpy
from stellwerk.wire.topology import WORK_CANCELLED, inference_queue, serving_key
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.grouped_work import Batch, Call, Form, envelope
from tests.fakes.runtime_inside import Rig, rig

KIB = 1024


class Model(LoadedModel):
    """Doubles X, with `width` columns more, and raises on 13. Once closed, the gate holds calls."""

    device, memory_bytes, streams = "cpu", 1, frozenset({"count"})

    def __init__(self, width: int = 0) -> None:
        self.width = width
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x: Any = inputs["X"]
        self.calls.append(len(x))
        self.gate.wait(10)
        if (x == 13).any():
            raise ValueError("thirteen")
        text = np.array([[b"x" * int(row[0])] for row in x], dtype=object)
        return {"y": 2 * x[:, :1], "wide": np.zeros((len(x), self.width)), "text": text}

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        for step in range(3):
            yield {"y": inputs["X"] + step}  # type: ignore[operator]

    def close(self) -> None: ...


def group(name: str, *values: int, timeout_ms: int = 60_000, **form: Any) -> work_pb2.WorkEnvelope:
    batch = Batch(Form(**form), [Call(value, timeout_ms) for value in values])
    return envelope([batch], name, grouped=True)[0]


async def ready(made: Rig, **serving: int) -> repository_pb2.ModelVersion:
    version = models.version("skops")
    for name, value in serving.items():
        setattr(version.serving, name, value)
    made.add(version)
    await made.serve(version)
    await made.ask_all(version, group("warm", 0, 0))
    made.group_replies.clear()
    made.replies.clear()
    return version


def doubled(reply: work_pb2.WorkReply) -> Any:
    return to_numpy(reply.outputs[0]).ravel().tolist() if reply.outputs else reply.error.reason


def count(made: Rig, name: str) -> float:
    return made.sample(f"stellwerk_model_batch_items_{name}", model_version=models.NAME)


async def test_a_group_is_one_call_and_one_reply(tmp_path: Path) -> None:
    model = Model()
    async with rig(tmp_path, model=model) as made:
        version = await ready(made)
        model.calls.clear()

        replies = await made.ask_all(version, group("g", *range(20, 50), rows=2))

        assert [doubled(reply) for reply in replies] == [[2.0 * n] * 2 for n in range(20, 50)]
        assert model.calls == [60]
        (sent,) = made.group_replies
        assert not sent.members and not sent.reply.id
        assert (sent.reply.rows, sent.reply.batch_rows, sent.reply.leads) == (2, 60, True)
        assert (count(made, "count"), count(made, "sum")) == (2, 32)


async def test_a_limit_cuts_a_group_and_one_reply_of_each_call_leads(tmp_path: Path) -> None:
    model = Model()
    async with rig(tmp_path, model=model, slots=1) as made:
        version = await ready(made, max_batch_size=8)
        model.calls.clear()
        mixed = group("g", *range(20, 40))
        mixed.items.extend(group("i", 5).items)

        replies = await made.ask_all(version, mixed)

        assert model.calls == [8, 8, 5]
        assert [doubled(reply) for reply in replies] == [[2.0 * n] for n in [5, *range(20, 40)]]
        assert [list(sent.members) for sent in made.group_replies] == [
            list(range(7)),
            list(range(7, 15)),
            list(range(15, 20)),
        ]
        assert sum(reply.leads for reply in made.replies) == 3


async def test_only_the_member_that_fails_has_the_error(tmp_path: Path) -> None:
    model = Model()
    async with rig(tmp_path, model=model) as made:
        version = await ready(made)
        model.calls.clear()

        replies = await made.ask_all(version, group("g", *range(5, 21)))

        assert [doubled(reply) for reply in replies] == [
            "MODEL_FAILED" if n == 13 else [2.0 * n] for n in range(5, 21)
        ]
        assert model.calls[0] == 16 and len(model.calls) == 9
        assert sum(reply.leads for reply in made.replies) == 5


async def test_a_large_answer_is_sent_in_parts_that_a_message_can_hold(tmp_path: Path) -> None:
    async with rig(tmp_path, model=Model(width=1000), max_message_bytes=128 * KIB) as made:
        version = await ready(made)
        values = [20_000, 30_000, 1, 70_000, 2, 3, 40_000, 4, 5, 6]

        replies = await made.ask_all(version, group("g", *values))

        large = [value for value in values if value == 70_000]
        assert [reply.error.reason for reply in replies] == [
            "TOO_LARGE" if value in large else "" for value in values
        ]
        for value, reply in zip(values, replies, strict=True):
            if value not in large:
                assert to_numpy(reply.outputs[2]).tolist() == [[b"x" * value]]
        assert sum(reply.leads for reply in made.replies) == 1
        assert len(made.group_replies) > 2
        await asyncio.wait_for(made.consumer.idle(), 5)


async def test_members_that_left_while_the_model_worked_are_not_answered_again(
    tmp_path: Path,
) -> None:
    model = Model()
    async with rig(tmp_path, model=model) as made:
        version = await ready(made)
        model.gate.clear()
        asking = asyncio.create_task(made.ask_all(version, group("g", *range(1, 7))))
        await eventually(lambda: len(model.calls) == 2)

        left = work_pb2.GroupMembers(id="g-0", members=[0, 3, 3, 99])
        unknown = work_pb2.GroupMembers(id="unknown", members=[1])
        await made.broker.subscribe(WORK_CANCELLED, made.consumer.cancel)
        body = work_pb2.Cancellation(groups=[left, unknown]).SerializeToString()
        await made.router.publish_event(WORK_CANCELLED, Message(body))
        await eventually(lambda: len(made.replies) == 2)
        model.gate.set()
        replies = await asking

        assert [doubled(reply) for reply in replies] == [
            "CANCELLED",
            [4.0],
            [6.0],
            "CANCELLED",
            [10.0],
            [12.0],
        ]
        assert [list(sent.members) for sent in made.group_replies] == [[0, 3], [1, 2, 4, 5]]


async def test_members_that_share_no_call_are_answered_one_after_the_other(
    tmp_path: Path,
) -> None:
    model = Model()
    async with rig(tmp_path, model=model, slots=1) as made:
        version = await ready(made)
        heard_at: list[int] = []
        made.heard = lambda reply: heard_at.append(len(model.calls))
        model.calls.clear()

        await made.ask_all(version, group("g", *range(30), method="transform"))

        assert model.calls == [1] * 30
        assert heard_at[0] < 30 and sum(reply.leads for reply in made.replies) == 30


async def test_members_of_a_streaming_method_have_streams_of_their_own(tmp_path: Path) -> None:
    async with rig(tmp_path, model=Model()) as made:
        version = await ready(made)
        sent = group("g", 1, 2, method="count", width=1)

        refused = await made.ask_all(version, sent)
        sent.groups[0].form.stream = True
        made.replies.clear()
        await made.ask_all(version, sent)

        assert {reply.error.reason for reply in refused} == {"UNIMPLEMENTED"}
        for number, name in ((1.0, "g-0/0"), (2.0, "g-0/1")):
            *parts, last = [reply for reply in made.replies if reply.id == name]
            assert [doubled(part) for part in parts] == [[number], [number + 1], [number + 2]]
            assert not last.more and not last.outputs


async def test_a_group_that_nobody_waits_for_is_not_computed(tmp_path: Path) -> None:
    model = Model()
    async with rig(tmp_path, model=model, slots=1) as made:
        version = await ready(made)
        model.gate.clear()
        first = asyncio.create_task(made.ask_all(version, group("first", 1, 2)))
        await eventually(lambda: len(model.calls) == 2)

        late = await made.ask_all(version, group("late", 1, 2, 3, timeout_ms=20))
        model.gate.set()
        await first
        await asyncio.wait_for(made.consumer.idle(), 5)

        assert {reply.error.reason for reply in late} == {"DEADLINE_PASSED"}
        assert model.calls == [2, 2]


@pytest.mark.parametrize("held", ["load", "model", "reply"])
async def test_a_runtime_that_dies_with_a_group_in_hand_leaves_it_to_another(
    tmp_path: Path, held: str
) -> None:
    model = Model()
    async with rig(tmp_path, model=model) as made:
        version = made.add(models.version("skops"))
        await made.serve(version)
        if held == "load":
            made.repository.gate.clear()
        elif held == "model":
            model.gate.clear()
        else:
            made.broker.gate.clear()
        sent = group("g", 1, 2, 3)
        sent.items.extend(group("i", 4).items)
        asking = asyncio.create_task(made.ask_all(version, sent))
        await eventually(lambda: made.consumer.in_flight == 4)
        if held != "load":
            await eventually(lambda: bool(model.calls))

        await made.broker.close()  # the runtime dies
        other = HubBroker(made.hub)
        found: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

        async def take(delivery: Delivery) -> None:
            found.set_result(delivery)

        key = serving_key(version.name, version.requires)
        await other.consume(inference_queue(key), take, prefetch=1)
        delivery = await asyncio.wait_for(found, 5)

        assert delivery.redelivered
        assert work_pb2.WorkEnvelope.FromString(delivery.message.body) == sent
        asking.cancel()
        for gate in (made.repository.gate, model.gate, made.broker.gate):
            gate.set()
        await other.close()


async def test_a_group_is_acknowledged_when_its_last_member_is_answered(tmp_path: Path) -> None:
    model = Model()
    async with rig(tmp_path, model=model, slots=1) as made:
        version = await ready(made, max_batch_size=2)
        model.gate.clear()
        asking = asyncio.create_task(made.ask_all(version, group("g", *range(5))))
        await eventually(lambda: len(model.calls) == 2)
        left = work_pb2.GroupMembers(id="g-0", members=[4])
        await made.broker.subscribe(WORK_CANCELLED, made.consumer.cancel)
        body = work_pb2.Cancellation(groups=[left]).SerializeToString()
        await made.router.publish_event(WORK_CANCELLED, Message(body))
        await eventually(lambda: len(made.replies) == 1)

        assert made.consumer.in_flight == 5
        model.gate.set()
        await asking
        await asyncio.wait_for(made.consumer.idle(), 5)
        assert made.consumer.in_flight == 0
