"""The embedded broker: a state machine of queues, consumers, deliveries and topics.

Pure: no I/O, no clock, no tasks. Its rules:

- A message is in one place until it is acknowledged or expires: in its queue, or at one consumer.
- A consumer holds at most its prefetch.
- Messages of a lost connection return to their places in their queues, marked as redelivered.
- An exclusive queue ends with its connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.chassis.broker.port import Depth, Message
from services.chassis.broker.pull.results import Result
from services.chassis.broker.topics import matches
from stellwerk.wire.topology import QueueSpec


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A message for a consumer of a connection; tag 0 needs no settling."""

    consumer: int
    tag: int
    redelivered: bool
    routing_key: str
    message: Message


class Sink(Protocol):
    """Takes the deliveries of one connection. Must not call the hub before it returns."""

    def deliver(self, dispatch: Dispatch) -> bool:
        """Takes a delivery; returns False to get none from queues until the hub's `resume`."""
        ...


@dataclass(slots=True)
class _Entry:
    order: int
    message: Message
    expires_at: float
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class _Consumer:
    number: int
    connection: _Connection
    queue: _Queue
    prefetch: int
    acks: bool
    unsettled: int = 0

    @property
    def ready(self) -> bool:
        return not self.connection.paused and (not self.prefetch or self.unsettled < self.prefetch)


@dataclass(slots=True, eq=False)
class _Queue:
    spec: QueueSpec
    owner: _Connection | None
    used_at: float
    waiting: deque[_Entry] = field(default_factory=deque)
    consumers: deque[_Consumer] = field(default_factory=deque)

    def next_ready(self) -> _Consumer | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.ready:
                return consumer
        return None

    def give_back(self, entry: _Entry) -> None:
        entry.redelivered = True
        at = 0
        while at < len(self.waiting) and self.waiting[at].order < entry.order:
            at += 1
        self.waiting.insert(at, entry)

    def drop_expired(self, now: float) -> None:
        if any(entry.expires_at <= now for entry in self.waiting):
            self.waiting = deque(entry for entry in self.waiting if entry.expires_at > now)


@dataclass(slots=True, eq=False)
class _Connection:
    sink: Sink
    paused: bool = False
    next_tag: int = 1
    consumers: dict[int, _Consumer] = field(default_factory=dict)
    patterns: dict[int, str] = field(default_factory=dict)
    unsettled: dict[int, tuple[_Consumer, _Entry]] = field(default_factory=dict)


class Hub:
    """All queues and connections. `now` is the seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._connections: dict[int, _Connection] = {}
        self._next_connection = 1
        self._next_order = 0

    def connect(self, sink: Sink) -> int:
        """Adds a connection; returns its number."""
        number = self._next_connection
        self._next_connection += 1
        self._connections[number] = _Connection(sink)
        return number

    def disconnect(self, connection: int, now: float) -> None:
        """Removes a connection with its consumers and exclusive queues.

        Its unsettled messages return to their queues.
        """
        gone = self._connections.pop(connection, None)
        if gone is None:
            return
        for consumer in gone.consumers.values():
            consumer.queue.consumers.remove(consumer)
            consumer.queue.used_at = now
        self._queues = {
            name: queue for name, queue in self._queues.items() if queue.owner is not gone
        }
        for consumer, entry in gone.unsettled.values():
            consumer.queue.give_back(entry)
        self._dispatch_all((consumer.queue for consumer, _ in gone.unsettled.values()), now)

    def declare(self, connection: int, spec: QueueSpec, now: float) -> Result:
        """Makes the queue unless it exists.

        Returns MISMATCH if it has other arguments or belongs to another connection.
        """
        queue = self._queues.get(spec.name)
        asking = self._connections[connection]
        if queue is None:
            self._queues[spec.name] = _Queue(spec, asking if spec.exclusive else None, now)
            return Result.OK
        # No queue outlives the hub, so durable and transient queues are the same.
        if replace(queue.spec, durable=spec.durable) != spec or queue.owner not in (None, asking):
            return Result.MISMATCH
        queue.used_at = now
        return Result.OK

    def publish(self, name: str, message: Message, now: float, *, mandatory: bool) -> Result:
        """Puts a message into a queue.

        Returns UNROUTABLE if `mandatory` and there is no such queue, FULL if it holds its maximum.
        """
        queue = self._queues.get(name)
        if queue is None:
            return Result.UNROUTABLE if mandatory else Result.OK
        if queue.spec.max_length and len(queue.waiting) >= queue.spec.max_length:
            queue.drop_expired(now)
            if len(queue.waiting) >= queue.spec.max_length:
                return Result.FULL
        self._next_order += 1
        expires_at = now + message.expiration_ms / 1000 if message.expiration_ms else math.inf
        queue.waiting.append(_Entry(self._next_order, message, expires_at))
        self._dispatch(queue, now)
        return Result.OK

    def publish_event(self, routing_key: str, message: Message) -> None:
        """Gives a message to every subscription whose pattern matches."""
        for connection in self._connections.values():
            for number, pattern in connection.patterns.items():
                if matches(pattern, routing_key):
                    connection.sink.deliver(Dispatch(number, 0, False, routing_key, message))

    def consume(
        self,
        connection: int,
        number: int,
        name: str,
        prefetch: int,
        now: float,
        *,
        acks: bool = True,
    ) -> Result:
        """Starts deliveries from a queue to the connection's consumer of this number."""
        queue = self._queues.get(name)
        asking = self._connections[connection]
        if queue is None:
            return Result.NO_QUEUE
        if queue.owner not in (None, asking):
            return Result.MISMATCH
        consumer = _Consumer(number, asking, queue, prefetch, acks)
        asking.consumers[number] = consumer
        queue.consumers.append(consumer)
        self._dispatch(queue, now)
        return Result.OK

    def subscribe(self, connection: int, number: int, pattern: str) -> None:
        """Starts deliveries of matching events to the connection's consumer of this number."""
        self._connections[connection].patterns[number] = pattern

    def cancel(self, connection: int, number: int, now: float) -> None:
        """Ends a consumer or subscription; its unsettled messages can still be settled."""
        asking = self._connections[connection]
        asking.patterns.pop(number, None)
        consumer = asking.consumers.pop(number, None)
        if consumer is not None:
            consumer.queue.consumers.remove(consumer)
            consumer.queue.used_at = now

    def settle(self, connection: int, tag: int, now: float, *, ack: bool) -> None:
        """Settles a delivery: removes its message, or returns it to its queue.

        Ignores an unknown tag.
        """
        holder = self._connections.get(connection)
        consumer, entry = (
            holder.unsettled.pop(tag, (None, None)) if holder is not None else (None, None)
        )
        if consumer is None or entry is None:
            return
        consumer.unsettled -= 1
        if not ack:
            consumer.queue.give_back(entry)
        self._dispatch(consumer.queue, now)

    def resume(self, connection: int, now: float) -> None:
        """Resumes deliveries to a connection whose sink had refused more."""
        waiting = self._connections.get(connection)
        if waiting is not None and waiting.paused:
            waiting.paused = False
            self._dispatch_all((consumer.queue for consumer in waiting.consumers.values()), now)

    def inspect(self, name: str, now: float) -> Depth:
        """Returns how full a queue is, Depth(0, 0) if there is none."""
        queue = self._queues.get(name)
        if queue is None:
            return Depth(0, 0)
        queue.drop_expired(now)
        return Depth(len(queue.waiting), len(queue.consumers))

    def expire(self, now: float) -> None:
        """Drops expired messages, and queues that were unused for longer than they may be.

        A queue is in use while it has consumers, and when it is declared.
        """
        for name, queue in list(self._queues.items()):
            queue.drop_expired(now)
            idle_ms = (now - queue.used_at) * 1000
            if queue.spec.expires_ms and not queue.consumers and idle_ms >= queue.spec.expires_ms:
                del self._queues[name]

    def _dispatch_all(self, queues: Iterable[_Queue], now: float) -> None:
        for queue in dict.fromkeys(queues):
            self._dispatch(queue, now)

    def _dispatch(self, queue: _Queue, now: float) -> None:
        while queue.waiting:
            if queue.waiting[0].expires_at <= now:
                queue.waiting.popleft()
                continue
            consumer = queue.next_ready()
            if consumer is None:
                return
            entry, connection = queue.waiting.popleft(), consumer.connection
            tag = 0
            if consumer.acks:
                tag, connection.next_tag = connection.next_tag, connection.next_tag + 1
                consumer.unsettled += 1
                connection.unsettled[tag] = (consumer, entry)
            dispatch = Dispatch(
                consumer.number, tag, entry.redelivered, queue.spec.name, entry.message
            )
            connection.paused = not connection.sink.deliver(dispatch) or connection.paused
