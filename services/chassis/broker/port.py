"""The broker as its users see it. Both adapters keep the promises written here; one contract suite
holds them to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stellwerk.wire.topology import QueueSpec


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: opaque bytes, string headers, and where an answer goes."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str = ""
    correlation_id: str = ""
    expiration_ms: int = 0
    message_id: str = ""


class Delivery(Protocol):
    """A message in a consumer's hands. Settle it exactly once; settling twice or after a reconnect
    does nothing.
    """

    @property
    def message(self) -> Message: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def routing_key(self) -> str: ...
    def ack(self) -> None: ...
    def nack(self, *, requeue: bool) -> None: ...


# A plain function is the faster one: it is called as the message is read, and no task is made for
# it. What it returns, if anything, is awaited.
Handler = Callable[[Delivery], Awaitable[None] | None]


class Consumer(Protocol):
    """A running subscription."""

    async def cancel(self) -> None:
        """Takes no further deliveries. What is in hand can still be settled."""
        ...


@dataclass(frozen=True, slots=True)
class Depth:
    """How full a queue is."""

    messages: int
    consumers: int


class Broker(Protocol):
    """Queues, deliveries and topics.

    `start` returns at once and connects in the background, for ever, with backoff. Consumers and
    declared queues come back by themselves after a reconnect or when only the channel was closed
    under them. Every call that needs the broker raises `BrokerDown` within its timeout when the
    broker does not answer; nothing hangs.
    """

    @property
    def description(self) -> str:
        """Such as "amqp (RabbitMQ 4.0.5)" or "pull"."""
        ...

    @property
    def problem(self) -> str:
        """Why the broker cannot be used now, one sentence; "" when it can."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def declare(self, queue: QueueSpec) -> None:
        """Makes sure the queue exists. Raises BrokerDown; Conflict if it exists with other
        arguments.
        """
        ...

    async def publish(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> None:
        """Sends to one queue; returns when the broker has confirmed.

        Raises Unroutable if mandatory and there is no such queue, Overloaded if the queue is full,
        BrokerDown if the broker is away or does not confirm in time (the message may have arrived
        all the same).
        """
        ...

    def post(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> asyncio.Future[None]:
        """Sends to one queue, at once where the broker is there; the future ends as `publish` does.
        Never raises.
        """
        ...

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        """Sends to every subscriber whose pattern matches; none is fine. Raises BrokerDown."""
        ...

    async def consume(
        self, queue: QueueSpec, handler: Handler, *, prefetch: int, acks: bool = True
    ) -> Consumer:
        """Declares the queue and delivers its messages to `handler`, which must not block.

        At most `prefetch` deliveries are unsettled at a time; 0 for no bound. A handler that raises
        is logged and its delivery rejected without requeue. Without `acks` a message is settled by
        being sent: there is no bound, and what was on its way to a consumer that died is lost with
        it, as it should be with answers that only it awaits. Raises BrokerDown only if the first
        attempt outlasts 5 seconds.
        """
        ...

    async def subscribe(self, pattern: str, handler: Handler) -> Consumer:
        """Delivers events whose routing key matches ("*" one word, "#" any words). Deliveries need
        no settling.
        """
        ...

    async def inspect(self, queue: str) -> Depth:
        """How full the queue is; Depth(0, 0) if there is none. Raises BrokerDown."""
        ...

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Calls back with a reason each time an established connection is lost: answers on the way
        are lost with it.
        """
        ...
