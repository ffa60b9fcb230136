"""A broker in the hand of a test: it keeps what is published, and confirms and answers when it is
told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from services.chassis.broker.port import Handler, Message
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.topology import QueueSpec


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """A delivery of replies."""

    redelivered, routing_key = False, ""

    def __init__(self, body: bytes) -> None:
        self.message = Message(body)
        self.settled = ""

    def ack(self) -> None:
        self.settled = "ack"

    def nack(self, *, requeue: bool) -> None:
        self.settled = "requeue" if requeue else "reject"


class HeldBroker:
    """The part of the broker port that a dispatcher uses."""

    description = "in a test's hand"

    def __init__(self) -> None:
        self.problem = ""
        self.declared: list[str] = []
        self.envelopes: list[work_pb2.WorkEnvelope] = []
        self.messages: list[Message] = []
        # Errors for the next publishes, in order; None for one that is taken.
        self.errors: list[Exception | None] = []
        # Whether it confirms at once; otherwise when `confirm` is called.
        self.confirms = True
        self._unconfirmed: list[asyncio.Future[None]] = []
        self._lost: list[Callable[[str], None]] = []
        self._handler: Handler | None = None

    def on_lost(self, callback: Callable[[str], None]) -> None:
        self._lost.append(callback)

    async def declare(self, queue: QueueSpec) -> None:
        self.declared.append(queue.name)

    async def consume(self, queue: QueueSpec, handler: Handler, **options: Any) -> None:
        self._handler = handler

    def post(self, queue: str, message: Message, *, timeout: float) -> asyncio.Future[None]:
        posted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            posted.set_exception(error)
            return posted
        self.messages.append(message)
        self.envelopes.append(work_pb2.WorkEnvelope.FromString(message.body))
        if self.confirms:
            posted.set_result(None)
        else:
            self._unconfirmed.append(posted)
        return posted

    def confirm(self) -> None:
        """Confirms what it has taken, and from now on at once."""
        self.confirms = True
        for posted in self._unconfirmed:
            posted.set_result(None)
        self._unconfirmed.clear()

    def refuse(self, error: Exception) -> None:
        """Ends with an error what it has taken and not confirmed."""
        for posted in self._unconfirmed:
            posted.set_exception(error)
        self._unconfirmed.clear()

    @property
    def items(self) -> list[work_pb2.WorkItem]:
        """Everything published, in order."""
        return [item for envelope in self.envelopes for item in envelope.items]

    def lose(self) -> None:
        """The connection breaks."""
        for callback in self._lost:
            callback("it broke")

    def deliver(self, body: bytes) -> Answers:
        """Puts bytes into the reply queue."""
        assert self._handler is not None
        delivery = Answers(body)
        self._handler(delivery)
        return delivery

    def answer(self, replies: Sequence[work_pb2.WorkReply]) -> None:
        """Puts replies into the reply queue, as one message."""
        self.deliver(work_pb2.WorkReplyEnvelope(replies=replies).SerializeToString())


async def turns(count: int = 6) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)
