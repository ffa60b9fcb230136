"""The embedded broker's state machine: queues, consumers, deliveries and topics as values; no I/O,
no clock, no tasks.

Rules: a message is in one place at a time (waiting in its queue or unsettled at one consumer) until
it is acknowledged or expires; a consumer never holds more than its prefetch; what a lost connection
held goes back to where it was in its queue, marked redelivered; an exclusive queue lives and dies
with its connection.
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
    """A message on its way to a consumer; tag 0 needs no settling."""

    consumer: int
    tag: int
    redelivered: bool
    routing_key: str
    message: Message


class Sink(Protocol):
    """Where a connection's deliveries go. It must not call the hub back before it returns."""

    def deliver(self, dispatch: Dispatch) -> bool:
        """Takes the delivery. False: no more from queues until the hub's `resume`."""
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
    """All queues and connections. `now` is seconds on any clock that only goes forward."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._connections: dict[int, _Connection] = {}
        self._next_connection = 1
        self._next_order = 0

    def connect(self, sink: Sink) -> int:
        """A new connection's number."""
        number = self._next_connection
        self._next_connection += 1
        self._connections[number] = _Connection(sink)
        return number

    def disconnect(self, connection: int, now: float) -> None:
        """Forgets the connection: its consumers, its exclusive queues; what it held unsettled goes
        back.
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
        """Makes sure the queue exists. MISMATCH if it has other arguments or belongs to another
        connection.
        """
        queue = self._queues.get(spec.name)
        asking = self._connections[connection]
        if queue is None:
            self._queues[spec.name] = _Queue(spec, asking if spec.exclusive else None, now)
            return Result.OK
        # Nothing here outlives the hub, so whether a queue is durable makes no difference.
        if replace(queue.spec, durable=spec.durable) != spec or queue.owner not in (None, asking):
            return Result.MISMATCH
        queue.used_at = now
        return Result.OK

    def publish(self, name: str, message: Message, now: float, *, mandatory: bool) -> Result:
        """Puts a message into a queue. UNROUTABLE if mandatory and there is none, FULL if it holds
        its maximum.
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
        """Gives the message to every subscription whose pattern matches."""
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
        """Ends a consumer or subscription; what it holds can still be settled."""
        asking = self._connections[connection]
        asking.patterns.pop(number, None)
        consumer = asking.consumers.pop(number, None)
        if consumer is not None:
            consumer.queue.consumers.remove(consumer)
            consumer.queue.used_at = now

    def settle(self, connection: int, tag: int, now: float, *, ack: bool) -> None:
        """Ends an unsettled delivery: done with, or back into its queue. An unknown tag does
        nothing.
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
        """The connection's sink takes deliveries again."""
        waiting = self._connections.get(connection)
        if waiting is not None and waiting.paused:
            waiting.paused = False
            self._dispatch_all((consumer.queue for consumer in waiting.consumers.values()), now)

    def inspect(self, name: str, now: float) -> Depth:
        """How full a queue is; nothing at all if there is none."""
        queue = self._queues.get(name)
        if queue is None:
            return Depth(0, 0)
        queue.drop_expired(now)
        return Depth(len(queue.waiting), len(queue.consumers))

    def expire(self, now: float) -> None:
        """Drops messages past their time, and queues that nobody consumed or declared for as long
        as they may idle.
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
