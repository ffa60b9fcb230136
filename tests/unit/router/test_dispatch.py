"""Dispatch over a real hub: work goes out in envelopes, answers come back, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import structlog

from services.chassis.broker.hub import Hub
from services.chassis.broker.hub_broker import HubBroker
from services.chassis.broker.port import Delivery, Message
from services.router.dispatch import MAX_ITEMS, Dispatcher, Lane, _cut
from services.router.pending import PendingTable
from services.wire import topology
from services.wire.errors import BrokerDown, DeadlinePassed, ModelFailed, Unavailable, to_work_error
from stellwerk.job.v1 import work_pb2

KEY = "default/iris/1/any"


class Rig:
    """A dispatcher and a broker for it."""

    def __init__(self) -> None:
        self.broker = HubBroker(Hub())
        self.pending = PendingTable()
        self.dispatcher = Dispatcher(self.broker, self.pending, "r1", structlog.get_logger())
        self.envelopes: list[work_pb2.WorkEnvelope] = []

    async def answer(self, delivery: Delivery) -> None:
        """A runtime that echoes each item's method, and fails where it is asked to."""
        envelope = work_pb2.WorkEnvelope.FromString(delivery.message.body)
        self.envelopes.append(envelope)
        replies = work_pb2.WorkReplyEnvelope()
        for item in envelope.items:
            if item.method == "fail":
                replies.replies.add(id=item.id, error=to_work_error(ModelFailed("it broke")))
            elif item.method != "silent":
                replies.replies.add(id=item.id, runtime=item.method)
        await self.broker.publish(delivery.message.reply_to, Message(replies.SerializeToString()))
        delivery.ack()

    async def call(self, method: str, seconds: float = 5.0) -> work_pb2.WorkReply:
        return await self.dispatcher.call(KEY, work_pb2.WorkItem(method=method), time.monotonic() + seconds)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.broker.start()
    listening = asyncio.create_task(rig.dispatcher.listen())
    await rig.broker.consume(topology.inference_queue(KEY), rig.answer, prefetch=10)
    while not rig.dispatcher.listening:
        await asyncio.wait({listening}, timeout=0.01)
    yield rig
    listening.cancel()
    await rig.broker.close()


async def test_every_caller_gets_its_own_answer(rig: Rig) -> None:
    methods = [f"m{number}" for number in range(300)]

    replies = await asyncio.gather(*(rig.call(method) for method in methods))

    assert [reply.runtime for reply in replies] == methods
    assert len(rig.envelopes) < 300
    assert max(len(envelope.items) for envelope in rig.envelopes) <= MAX_ITEMS
    assert len(rig.pending) == 0


async def test_an_error_reaches_only_its_caller(rig: Rig) -> None:
    good, bad = await asyncio.gather(rig.call("fine"), rig.call("fail"))

    assert good.runtime == "fine"
    assert bad.error.reason == "MODEL_FAILED"


async def test_silence_ends_at_the_deadline(rig: Rig) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlinePassed):
        await rig.call("silent", 0.2)

    assert 0.15 < time.monotonic() - started < 0.45
    assert len(rig.pending) == 0


async def test_a_caller_that_leaves_is_forgotten(rig: Rig) -> None:
    call = asyncio.create_task(rig.call("silent"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})

    assert len(rig.pending) == 0


async def test_a_lost_broker_fails_everything_that_waits(rig: Rig) -> None:
    call = asyncio.create_task(rig.call("silent"))
    while not rig.envelopes:
        await asyncio.wait({call}, timeout=0.01)

    rig.dispatcher._lost("gone")

    with pytest.raises(BrokerDown):
        await call


async def test_before_it_hears_answers_nothing_is_sent() -> None:
    broker = HubBroker(Hub())
    dispatcher = Dispatcher(broker, PendingTable(), "r1", structlog.get_logger())

    with pytest.raises(Unavailable):
        await dispatcher.call(KEY, work_pb2.WorkItem(), time.monotonic() + 1)


def test_an_envelope_is_cut_by_count_and_by_size() -> None:
    lane = Lane()
    lane.waiting = [(work_pb2.WorkItem(id=str(number)), 0.0) for number in range(MAX_ITEMS + 5)]
    assert len(_cut(lane)) == MAX_ITEMS
    assert len(_cut(lane)) == 5

    big = work_pb2.WorkItem(outputs=["x" * 700_000])
    lane.waiting = [(big, 0.0), (big, 0.0), (big, 0.0)]
    assert [len(_cut(lane)) for _ in range(3)] == [1, 1, 1]
    assert lane.waiting == []
