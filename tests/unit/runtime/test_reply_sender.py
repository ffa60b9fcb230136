"""Answers on their way to routers: gathered while a message is under way, bounded, and never lost
in silence.
"""

from __future__ import annotations

import asyncio

from services.chassis.broker.port import Message
from services.runtime.replies.sender import ReplySender
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import BrokerDown, NotPermitted, ServiceError, Unroutable
from tests.fakes.eventually import eventually
from tests.fakes.log import FakeLog

MB = 1 << 20


class Wire:
    """The sending half of a broker; `gate`, once cleared, holds messages back."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str]]] = []
        self.errors: list[str] = []
        self.failures: list[ServiceError] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.tasks: list[asyncio.Task[None]] = []

    def post(self, queue: str, message: Message) -> asyncio.Future[None]:
        self.tasks.append(asyncio.create_task(self._send(queue, message)))
        return self.tasks[-1]

    async def _send(self, queue: str, message: Message) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        envelope = work_pb2.WorkReplyEnvelope.FromString(message.body)
        self.sent.append((queue, [reply.id for reply in envelope.replies]))
        self.errors += [reply.error.reason for reply in envelope.replies if reply.HasField("error")]


class Sends:
    """A sender, and what became of what it was given."""

    def __init__(self, wire: Wire, max_message_bytes: int = 64 * MB) -> None:
        self.log = FakeLog()
        self.sender = ReplySender(wire, max_message_bytes=max_message_bytes, log=self.log)  # type: ignore[arg-type]
        self.taken: list[tuple[int, bool]] = []

    def send(self, queue: str, *frames: bytes, each: int = 1) -> None:
        self.sender.send(
            queue, frames, lambda count, taken: self.taken.append((count, taken)), each
        )


def reply(name: str, size: int = 0) -> bytes:
    outputs = [tensor_pb2.Tensor(name="y", data=bytes(size))]
    return work_pb2.WorkReplyEnvelope(
        replies=[work_pb2.WorkReply(id=name, outputs=outputs)]
    ).SerializeToString()


async def test_what_one_turn_answers_goes_together_and_so_does_what_comes_meanwhile() -> None:
    wire = Wire()
    sends = Sends(wire)
    wire.gate.clear()
    sends.send("q", reply("1"), reply("2"))
    sends.send("q", reply("3"))
    await eventually(lambda: len(wire.tasks) == 1)
    sends.send("q", reply("4"))
    sends.send("other", reply("6"))
    sends.send("q", reply("5"))
    wire.gate.set()

    await sends.sender.close()

    assert [ids for queue, ids in wire.sent if queue == "q"] == [["1", "2", "3"], ["4", "5"]]
    assert ("other", ["6"]) in wire.sent
    assert sorted(sends.taken) == [(1, True)] * 4 + [(2, True)]


async def test_large_replies_go_in_messages_of_their_own() -> None:
    wire = Wire()
    sends = Sends(wire)

    sends.send("q", *(reply(str(number), 3 * MB) for number in range(3)))
    await sends.sender.close()

    assert [ids for _, ids in wire.sent] == [["0"], ["1"], ["2"]]
    assert sends.taken == [(1, True)] * 3


async def test_a_message_has_so_many_replies_and_no_more() -> None:
    wire = Wire()
    sends = Sends(wire)

    sends.send("q", *(reply(str(number)) for number in range(300)))
    sends.send("q", *(reply(str(number)) for number in range(200)))
    await sends.sender.close()

    assert [len(ids) for _, ids in wire.sent] == [256, 244]
    assert sum(count for count, _ in sends.taken) == 500


async def test_a_reply_to_members_counts_as_many() -> None:
    wire = Wire()
    sends = Sends(wire)

    for number in range(5):
        sends.send("q", reply(str(number)), each=60)
    await sends.sender.close()

    assert [len(ids) for _, ids in wire.sent] == [4, 1]
    assert sends.taken == [(60, True)] * 5


async def test_a_reply_too_large_for_any_message_becomes_an_error_and_its_neighbours_do_not() -> (
    None
):
    wire = Wire()
    sends = Sends(wire, max_message_bytes=2 * MB)

    sends.send("q", reply("1"), reply("2", 3 * MB), reply("3"))
    await sends.sender.close()

    assert wire.sent == [("q", ["1", "2", "3"])]
    assert wire.errors == ["TOO_LARGE"]


async def test_a_router_that_is_gone_is_not_waited_for() -> None:
    wire = Wire()
    wire.failures = [Unroutable("no such queue"), NotPermitted("no")]
    sends = Sends(wire)

    sends.send("q", reply("1"))
    await sends.sender.close()
    sends.send("q", reply("2"))
    await sends.sender.close()

    assert sends.taken == [(1, False), (1, False)]
    assert sends.log.events() == ["reply_unwanted", "reply_refused"]


async def test_a_broker_that_comes_back_gets_the_reply() -> None:
    wire = Wire()
    wire.failures = [BrokerDown("away")]
    sends = Sends(wire)

    sends.send("q", reply("1"))
    await sends.sender.close()

    assert wire.sent == [("q", ["1"])]
    assert sends.taken == [(1, True)]


async def test_what_is_broken_off_is_neither_sent_nor_settled() -> None:
    wire = Wire()
    wire.gate.clear()
    sends = Sends(wire)
    sends.send("q", reply("1"))
    await eventually(lambda: len(wire.tasks) == 1)

    wire.tasks[0].cancel()
    await sends.sender.close()

    assert sends.taken == []
