"""The broker port: queues with acknowledgements, and topics. A new broker implements `Broker`.

Threads: everything runs in one event loop. No method is called from another thread, and handlers
and callbacks run in the loop.

Delivery: at least once. A message is delivered again, with `redelivered` True, when its consumer
rejected it with `requeue`, or lost its connection before it settled the message. A duplicate is
therefore possible and must be harmless.

Order: while a connection lasts, messages of one publisher to one queue are delivered in the order
in which they were published. A message that returns to its queue goes back to its place in it as
nearly as the broker can. Among several consumers of a queue, and between queues, there is no order.

Loss: messages are kept in memory. A restart of the broker loses them, and so does a queue that
expires; nothing that must not be lost may exist only as a message.

The suite in tests/contract holds every adapter to these promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stellwerk.wire.topology import QueueSpec

# Seconds by which the timeout of a publication may end early: timers count whole milliseconds, and
# one timer may end several publications whose timeouts lie close together.
EARLY_SECONDS = 0.025


@dataclass(frozen=True, slots=True)
class Message:
    """A message: opaque bytes with text headers.

    `reply_to` is the queue for an answer and `correlation_id` the id that joins it to this message;
    `message_id` is its own id; all are "" if not given. `expiration_ms` is the time in milliseconds
    after which an undelivered message is dropped, 0 for never. Names, ids and header names have at
    most 255 bytes in UTF-8.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str = ""
    correlation_id: str = ""
    expiration_ms: int = 0
    message_id: str = ""


class Delivery(Protocol):
    """A message at a consumer, to be settled exactly once by `ack` or `nack`.

    Settling it again, or after its connection was lost, does nothing. Both return at once; the
    broker may learn of it a moment later.
    """

    @property
    def message(self) -> Message:
        """The message, as it was published."""
        ...

    @property
    def redelivered(self) -> bool:
        """True if it may have been delivered before."""
        ...

    @property
    def routing_key(self) -> str:
        """The queue's name, or the routing key of an event."""
        ...

    def ack(self) -> None:
        """Removes the message from its queue."""
        ...

    def nack(self, *, requeue: bool) -> None:
        """Rejects the message: it returns to its queue with `requeue`, otherwise it is dropped."""
        ...


# Takes a delivery. A plain function is faster than a coroutine function: it is called while the
# message is read, and no task is made for it. An awaitable that it returns is awaited in a task.
Handler = Callable[[Delivery], Awaitable[None] | None]


class Consumer(Protocol):
    """A running consumer of a queue, or a running subscription."""

    async def cancel(self) -> None:
        """Ends deliveries. Those under way can still be settled; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Depth:
    """The number of messages that wait in a queue, and of its consumers."""

    messages: int
    consumers: int


class Broker(Protocol):
    """Queues, deliveries and topics.

    `start` returns at once and connects in the background, for ever, with backoff. After a
    reconnect, or if only a channel was closed, declared queues, consumers and subscriptions are set
    up again without a call. Every call that needs the broker raises BrokerDown within its timeout
    if the broker does not answer; none waits longer.
    """

    @property
    def description(self) -> str:
        """The kind of the broker and, if known, its release: "amqp (RabbitMQ 4.0.5)" or "pull"."""
        ...

    @property
    def problem(self) -> str:
        """One sentence on why the broker cannot be used now, "" if it can."""
        ...

    async def start(self) -> None:
        """Connects in the background. Called once, before anything else; never raises."""
        ...

    async def close(self) -> None:
        """Ends consumers and connections; unsettled messages return to their queues."""
        ...

    async def declare(self, queue: QueueSpec) -> None:
        """Makes the queue unless it exists.

        An exclusive queue belongs to this connection and ends with it. Raises BrokerDown within 5
        seconds; Conflict if the queue exists with other arguments or belongs to another connection.
        """
        ...

    async def publish(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> None:
        """Sends to one queue; returns once the broker has confirmed.

        Raises Unroutable if `mandatory` and there is no such queue; without `mandatory` such a
        message is dropped. Raises Overloaded if the queue is full, TooLarge if the broker does not
        take the body. Raises BrokerDown if the broker does not confirm within `timeout` seconds,
        or within EARLY_SECONDS less; the message may have arrived all the same.
        """
        ...

    def post(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> asyncio.Future[None]:
        """Sends to one queue, before it returns if the broker is connected.

        The future ends as `publish` does. Never raises itself.
        """
        ...

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        """Sends to every subscription whose pattern matches; none is no error.

        Raises BrokerDown if the broker does not confirm within `timeout` seconds.
        """
        ...

    async def consume(
        self, queue: QueueSpec, handler: Handler, *, prefetch: int, acks: bool = True
    ) -> Consumer:
        """Declares the queue and gives its messages to `handler`, which must not block.

        At most `prefetch` deliveries are unsettled at a time; 0 sets no bound. A handler that
        raises is logged, and its delivery rejected without requeue. Without `acks` a message is
        settled by being sent: there is no bound, and messages on their way to a consumer that died
        are lost. Raises BrokerDown if deliveries have not begun within 5 seconds, and Conflict as
        `declare` does.
        """
        ...

    async def subscribe(self, pattern: str, handler: Handler) -> Consumer:
        """Gives events to `handler` whose routing key matches; they need no settling.

        Words of a key stand between dots; in a pattern "*" stands for one word and "#" for any
        number. Events that are published while there is no connection are missed. Raises BrokerDown
        if deliveries have not begun within 5 seconds.
        """
        ...

    async def inspect(self, queue: str) -> Depth:
        """Returns how full the queue is, Depth(0, 0) if there is none.

        Raises BrokerDown within 5 seconds.
        """
        ...

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Has `callback` called with a reason whenever an established connection is lost.

        Answers on their way are then lost, and events may be missed.
        """
        ...
