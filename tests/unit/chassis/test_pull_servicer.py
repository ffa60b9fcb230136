"""The hub's gRPC side: what a process that reads slowly, breaks off or talks nonsense does to the
others: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.chassis.broker.port import Depth, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.servicer import PullServicer
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.wire.errors import Overloaded

MEBIBYTE = bytes(1024 * 1024)


class Talk:
    """One stream: frames go in, frames come out."""

    def __init__(self, servicer: PullServicer) -> None:
        self._requests: asyncio.Queue[pull.ExchangeRequest | None] = asyncio.Queue()
        self.responses = servicer.Exchange(self._stream(), None)
        self._sequence = 0

    async def _stream(self) -> AsyncGenerator[pull.ExchangeRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def ask(self, **frame: object) -> pull.Outcome:
        """Sends a frame and returns its outcome, for as long as nothing else is on its way."""
        self._sequence += 1
        self._requests.put_nowait(pull.ExchangeRequest(sequence=self._sequence, **frame))  # type: ignore[arg-type]
        response = await anext(self.responses)
        assert response.sequence == self._sequence
        return response.outcome

    def tell(self, **frame: object) -> None:
        self._requests.put_nowait(pull.ExchangeRequest(**frame))  # type: ignore[arg-type]

    def end(self) -> None:
        self._requests.put_nowait(None)


async def consuming(servicer: PullServicer, queue: str) -> Talk:
    talk = Talk(servicer)
    await talk.ask(declare=pull.QueueDeclaration(name=queue))
    await talk.ask(consume=pull.Consume(queue=queue))
    return talk


async def test_a_slow_reader_leaves_its_work_in_the_queue_and_gets_it_later() -> None:
    hub = Hub()
    talk = await consuming(PullServicer(hub), "q")

    for _ in range(40):
        hub.publish("q", Message(MEBIBYTE), 0, mandatory=True)

    assert hub.inspect("q", 0).messages == 24
    async with aclosing(talk.responses):
        received = 0
        while received < 40:
            response = await anext(talk.responses)
            received += len(response.batch) or 1
    assert hub.inspect("q", 0).consumers == 0


async def test_a_stream_that_does_not_read_its_events_is_ended() -> None:
    hub = Hub()
    talk = Talk(PullServicer(hub))
    await talk.ask(consume=pull.Consume(queue="#", topic=True))

    for _ in range(50_001):
        hub.publish_event("news", Message(b""))

    with pytest.raises(Overloaded):
        await anext(talk.responses)


async def test_what_a_broken_stream_held_goes_back() -> None:
    hub = Hub()
    talk = await consuming(PullServicer(hub), "q")
    hub.publish("q", Message(b"x"), 0, mandatory=True)
    await anext(talk.responses)
    assert hub.inspect("q", 0) == Depth(0, 1)

    await talk.responses.aclose()

    assert hub.inspect("q", 0) == Depth(1, 0)


async def test_frames_that_gathered_come_as_one_batch_in_order() -> None:
    hub = Hub()
    talk = await consuming(PullServicer(hub), "q")
    for number in range(300):
        hub.publish("q", Message(b"%d" % number), 0, mandatory=True)

    bodies: list[bytes] = []
    sizes: list[int] = []
    while len(bodies) < 300:
        response = await anext(talk.responses)
        sizes.append(len(response.batch))
        bodies += [frame.delivery.message.body for frame in response.batch]

    assert bodies == [b"%d" % number for number in range(300)]
    assert sizes == [128, 128, 44]
    await talk.responses.aclose()


async def test_a_frame_that_asks_nothing_is_answered_without_a_result() -> None:
    talk = Talk(PullServicer(Hub()))

    assert (await talk.ask()).result == pull.Outcome.RESULT_UNSPECIFIED
    assert (await talk.ask(inspect="nowhere")).messages == 0
    talk.tell(settle=pull.Settle(tag=99, ack=True))
    assert (await talk.ask(cancel=99)).result == pull.Outcome.RESULT_OK
    await talk.responses.aclose()


async def test_streams_end_when_the_client_is_done_or_the_server_stops() -> None:
    servicer = PullServicer(Hub())
    done, stopped = Talk(servicer), Talk(servicer)
    await done.ask(inspect="q")
    await stopped.ask(inspect="q")

    done.end()
    assert [frame async for frame in done.responses] == []
    await servicer.end_streams()
    assert [frame async for frame in stopped.responses] == []
