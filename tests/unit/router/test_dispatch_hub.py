"""Dispatch over a real hub, by the real clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
import structlog

from services.chassis.broker.port import Delivery, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.chassis.futures import settle
from services.router.dispatch.dispatcher import Dispatcher
from services.router.queueing.pending_requests import PendingRequests
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import DeadlinePassed, ModelFailed, to_work_error
from tests.fakes.dispatch_rig import KEY
from tests.fakes.eventually import eventually
from tests.fakes.held_broker import turns


class Echo:
    """A dispatcher and a runtime over a real hub, by the real clock."""

    def __init__(self) -> None:
        self.broker = HubBroker(Hub())
        self.pending = PendingRequests()
        self.dispatcher = Dispatcher(self.broker, self.pending, "r1", structlog.get_logger())
        self.envelopes = 0

    async def answer(self, delivery: Delivery) -> None:
        """Echoes each item's method, and fails or keeps silent where it is asked to."""
        envelope = work_pb2.WorkEnvelope.FromString(delivery.message.body)
        self.envelopes += 1
        replies = work_pb2.WorkReplyEnvelope()
        for item in envelope.items:
            if item.method == "fail":
                replies.replies.add(id=item.id, error=to_work_error(ModelFailed("it broke")))
            elif item.method != "silent":
                replies.replies.add(id=item.id, runtime=item.method)
        await self.broker.publish(delivery.message.reply_to, Message(replies.SerializeToString()))
        delivery.ack()

    async def call(self, method: str, seconds: float = 5.0) -> work_pb2.WorkReply:
        """Submits an item and waits for its reply; one that is cancelled is cancelled there."""
        future: asyncio.Future[work_pb2.WorkReply] = asyncio.get_running_loop().create_future()
        id = self.dispatcher.submit(
            KEY,
            work_pb2.WorkItem(method=method),
            deadline=time.monotonic() + seconds,
            on_reply=partial(settle, future),
        )
        try:
            return await future
        finally:
            self.dispatcher.cancel(id)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    await echo.broker.start()
    await echo.dispatcher.listen()
    await echo.broker.consume(topology.inference_queue(KEY), echo.answer, prefetch=10)
    yield echo
    await echo.broker.close()


async def test_every_caller_gets_its_own_answer(echo: Echo) -> None:
    methods = [f"m{number}" for number in range(300)]

    replies = await asyncio.gather(*(echo.call(method) for method in methods))

    assert [reply.runtime for reply in replies] == methods
    assert echo.envelopes < 60
    assert len(echo.pending) == 0


async def test_an_error_reaches_only_its_caller(echo: Echo) -> None:
    good, bad = await asyncio.gather(echo.call("fine"), echo.call("fail"))

    assert good.runtime == "fine"
    assert bad.error.reason == "MODEL_FAILED"


async def test_a_timeout_of_200_ms_fires_within_250(echo: Echo) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlinePassed):
        await echo.call("silent", 0.2)

    assert 0.2 <= time.monotonic() - started < 0.25


async def test_a_caller_that_leaves_hears_nothing(echo: Echo) -> None:
    call = asyncio.create_task(echo.call("silent"))
    await turns()

    call.cancel()
    await asyncio.wait({call})

    assert call.cancelled()


async def test_runtimes_hear_of_what_nobody_waits_for_any_more(echo: Echo) -> None:
    heard: list[str] = []

    def on_event(delivery: Delivery) -> None:
        heard.extend(work_pb2.Cancellation.FromString(delivery.message.body).ids)

    await echo.broker.subscribe(topology.WORK_CANCELLED, on_event)
    tasks = [asyncio.create_task(echo.call("silent")) for _ in range(3)]
    await eventually(lambda: echo.envelopes > 0)

    for task in tasks[:2]:
        task.cancel()
    await eventually(lambda: len(heard) == 2)
    answered = await echo.call("fine")

    assert heard == ["r1.1", "r1.2"]
    assert answered.runtime == "fine"
    tasks[2].cancel()
