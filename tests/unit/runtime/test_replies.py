"""Answers on their way to routers: gathered while a message is under way, bounded, and never lost in silence."""

from __future__ import annotations

import asyncio

from services.chassis.broker.port import Message
from services.runtime.replies import ReplySender
from services.wire.errors import BrokerDown, ServiceError, Unroutable
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from tests.fakes.log import FakeLog

MB = 1 << 20


class Wire:
    """The publishing half of a broker; `gate`, once cleared, holds messages back."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str]]] = []
        self.errors: list[str] = []
        self.failures: list[ServiceError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        envelope = work_pb2.WorkReplyEnvelope.FromString(message.body)
        self.sent.append((queue, [reply.id for reply in envelope.replies]))
        self.errors += [reply.error.reason for reply in envelope.replies if reply.HasField("error")]


def sender(wire: Wire, max_message_bytes: int = 64 * MB) -> ReplySender:
    return ReplySender(wire, max_message_bytes=max_message_bytes, log=FakeLog())  # type: ignore[arg-type]


def reply(name: str, size: int = 0) -> work_pb2.WorkReply:
    return work_pb2.WorkReply(id=name, outputs=[tensor_pb2.Tensor(name="y", data=bytes(size))])


async def test_the_first_goes_at_once_and_the_next_go_together() -> None:
    wire = Wire()
    replies = sender(wire)
    wire.gate.clear()
    first = replies.send("q", reply("1"))
    await asyncio.sleep(0)
    rest = [replies.send("q", reply(str(number))) for number in (2, 3, 4)]
    other = replies.send("other", reply("5"))
    wire.gate.set()

    assert all(await asyncio.gather(first, *rest, other))
    assert [ids for queue, ids in wire.sent if queue == "q"] == [["1"], ["2", "3", "4"]]
    assert ("other", ["5"]) in wire.sent


async def test_large_replies_go_in_messages_of_their_own() -> None:
    wire = Wire()
    replies = sender(wire)

    await asyncio.gather(*(replies.send("q", reply(str(number), 3 * MB)) for number in range(3)))

    assert [ids for _, ids in wire.sent] == [["0"], ["1"], ["2"]]


async def test_a_reply_too_large_for_any_message_becomes_an_error() -> None:
    wire = Wire()

    assert await sender(wire, max_message_bytes=2 * MB).send("q", reply("1", 3 * MB))
    assert wire.errors == ["TOO_LARGE"]


async def test_a_router_that_is_gone_is_not_waited_for() -> None:
    wire = Wire()
    wire.failures = [Unroutable("no such queue")]

    assert await sender(wire).send("q", reply("1")) is False


async def test_a_broker_that_comes_back_gets_the_reply() -> None:
    wire = Wire()
    wire.failures = [BrokerDown("away")]
    replies = sender(wire)

    assert await replies.send("q", reply("1")) is True
    await replies.close()
    assert wire.sent == [("q", ["1"])]
