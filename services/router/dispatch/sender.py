"""Sends the envelopes of outbound queues and takes in the broker's confirms. Work that the broker
cannot take now is held back and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import structlog

from services.chassis.broker.port import Broker, Message
from services.router.dispatch.metrics import BROKER_DOWN, BROKER_FULL, DEADLINE_PASSED
from services.router.queueing.admission import UNREACHABLE, hopeless
from services.router.queueing.outbound_queue import LEAST_SECONDS, OutboundQueue
from services.router.queueing.pending_requests import Outcome, PendingRequest
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import BrokerDown, DeadlinePassed, Overloaded, ServiceError, Unroutable
from stellwerk.wire.frames import VARINT, tag, varint

# Seconds after which an unconfirmed envelope counts as lost.
_CONFIRM_SECONDS = 3.0
# Seconds by which a confirm's timeout may come before the deadline that it was set to: its timer
# counts whole milliseconds.
_TIMER_SECONDS = 0.002
# Seconds that a queue rests after a send that failed, since the next one would fail as well.
_REST_SECONDS = 0.1
# Seconds that a broker may be away while new requests still wait for it; later they are refused at
# once. 3.0: a broker that only reconnects is back by then.
_PATIENCE_SECONDS = 3.0

# The largest timeout that an item has room for.
_LONGEST_MS = 2**32 - 1
_KEY = tag(work_pb2.WorkEnvelope, "key")
_ITEM = tag(work_pb2.WorkEnvelope, "items")
_TIMEOUT = tag(work_pb2.WorkItem, "timeout_ms", VARINT)

# Ends a request with an outcome and counts the reason, unless that is "".
End = Callable[[PendingRequest, Outcome, str], None]


class Problematic(Protocol):
    """A broker that says what its problem is."""

    @property
    def problem(self) -> str: ...


class BrokerHealth:
    """Remembers since when the broker cannot be used. Time is an argument."""

    def __init__(self, broker: Problematic) -> None:
        self._broker = broker
        # When the broker was first found unusable; None if it was fine when last asked.
        self.failing_since: float | None = None

    def fails(self, now: float) -> bool:
        """Asks the broker; returns whether it cannot be used now."""
        if not self._broker.problem:
            self.failing_since = None
            return False
        if self.failing_since is None:
            self.failing_since = now
        return True

    def lasting_problem(self, now: float) -> str:
        """Returns the broker's problem if that has lasted too long to wait for its end, else ""."""
        since = self.failing_since
        if since is None or not self.fails(now) or now - since < _PATIENCE_SECONDS:
            return ""
        return self._broker.problem


class Sender:
    """Sends envelopes for all outbound queues."""

    def __init__(
        self,
        broker: Broker,
        reply_to: str,
        end: End,
        wake: Callable[[OutboundQueue], None],
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Calls `wake` to have `send` called for a queue in the next turn of the loop."""
        self._broker = broker
        self._reply_to = reply_to
        self._end = end
        self._wake = wake
        self._clock = clock
        self._log = log
        self.health = BrokerHealth(broker)
        # Queues whose work waits for the broker, not for replies.
        self._held: set[OutboundQueue] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, queue: OutboundQueue) -> None:
        """Sends the next envelope of a queue, if one is due; holds the queue back while the broker
        cannot be used.
        """
        queue.woken = False
        now = self._clock()
        if now < queue.rests_until or self.health.fails(now):
            self._held.add(queue)
            return
        batch, late = queue.cut(now)
        for request in late:
            self._end_late(request, now)
        if batch:
            queue.sends += 1
            message = self._message(queue.key, batch, now)
            if queue.declared:
                self._post(queue, message).add_done_callback(
                    partial(self._confirmed, queue, batch, message)
                )
            else:
                self._declare(queue, batch, message)
        if queue.due:
            self._wake(queue)

    def retry(self) -> None:
        """Wakes the queues that were held back."""
        held = self._held
        self._held = set()
        for queue in held:
            if queue.due:
                self._wake(queue)

    def lost(self, queue: OutboundQueue) -> None:
        """Prepares a queue for a new connection: the broker's queue may be gone, and no reply will
        have the waiting work sent.
        """
        queue.declared = False
        self._held.add(queue)

    def _message(self, key: str, batch: Sequence[PendingRequest], now: float) -> Message:
        items = [(request.body, max(1, int((request.deadline - now) * 1000))) for request in batch]
        for request in batch:
            request.body = b""
        longest = max(timeout_ms for _, timeout_ms in items)
        return Message(body=encode(key, items), reply_to=self._reply_to, expiration_ms=longest)

    def _post(self, queue: OutboundQueue, message: Message) -> asyncio.Future[None]:
        timeout = min(_CONFIRM_SECONDS, message.expiration_ms / 1000)
        return self._broker.post(queue.spec.name, message, timeout=timeout)

    def _declare(
        self, queue: OutboundQueue, batch: Sequence[PendingRequest], message: Message
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._declare_and_post(queue, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(self._confirmed, queue, batch, None))

    async def _declare_and_post(self, queue: OutboundQueue, message: Message) -> None:
        await self._broker.declare(queue.spec)
        queue.declared = True
        await self._post(queue, message)

    def _confirmed(
        self,
        queue: OutboundQueue,
        batch: Sequence[PendingRequest],
        again: Message | None,
        posted: asyncio.Future[None],
    ) -> None:
        """Takes in what became of a batch; `again` is its message if that may be sent once more."""
        error = None if posted.cancelled() else posted.exception()
        if isinstance(error, Unroutable) and again is not None:
            # The broker did not take the message: its queue has expired, since nobody used it.
            self._declare(queue, batch, again)
            return
        if posted.cancelled():
            self._failed(queue, batch, BrokerDown("the router is stopping; try again"))
        elif isinstance(error, ServiceError):
            self._failed(queue, batch, error)
        elif error is not None:
            self._log.error("dispatch_failed", key=queue.key, exc_info=error)
            self._failed(queue, batch, BrokerDown("the work could not be sent; try again"))
        queue.sends -= 1
        if queue.due:
            self._wake(queue)

    def _end_late(self, request: PendingRequest, now: float) -> None:
        left = request.deadline - now
        if left < LEAST_SECONDS:
            late = DeadlinePassed(
                "the deadline passed when the request's turn came; give the call more time"
            )
            self._end(request, late, DEADLINE_PASSED)
        else:
            self._end(request, hopeless(left), UNREACHABLE)

    def _failed(
        self, queue: OutboundQueue, batch: Sequence[PendingRequest], error: ServiceError
    ) -> None:
        now = self._clock()
        queue.declared = False
        queue.rests_until = now + _REST_SECONDS
        reason = BROKER_DOWN
        if isinstance(error, Overloaded):
            reason = error.metadata["reason_detail"] = BROKER_FULL
        late = DeadlinePassed(
            "the broker did not confirm the request before its deadline; give the call more time"
        )
        for request in batch:
            # No send outlasts its requests: a slow broker is no broken one to whose time is over.
            if request.deadline - now < _TIMER_SECONDS:
                self._end(request, late, DEADLINE_PASSED)
            else:
                self._end(request, error, reason)


def encode(key: str, items: Iterable[tuple[bytes, int]]) -> bytes:
    """Returns a serialised WorkEnvelope of serialised items, each with its timeout in milliseconds.

    An item is so serialised once, when it is submitted, and only its timeout when it is sent:
    protobuf reads fields in any order, and messages that are written one after the other as one.
    """
    name = key.encode()
    parts = [_KEY, varint(len(name)), name]
    for body, timeout_ms in items:
        timeout = _TIMEOUT + varint(min(timeout_ms, _LONGEST_MS))
        parts += (_ITEM, varint(len(body) + len(timeout)), body, timeout)
    return b"".join(parts)
