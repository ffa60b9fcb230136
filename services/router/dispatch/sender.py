"""Sends the envelopes of outbound queues and takes in the broker's confirms. Work that the broker
cannot take now is held back and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import structlog

from services.chassis.broker.port import EARLY_SECONDS, Broker, Message
from services.router.dispatch.group_dispatch import GroupDispatch
from services.router.dispatch.metrics import BROKER_DOWN, BROKER_FULL, DEADLINE_PASSED
from services.router.queueing.admission import UNREACHABLE, hopeless
from services.router.queueing.members import PendingGroup
from services.router.queueing.outbound_queue import LEAST_SECONDS, OutboundQueue
from services.router.queueing.pending_requests import Outcome, PendingRequest, Ticket
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import BrokerDown, DeadlinePassed, Overloaded, ServiceError, Unroutable
from stellwerk.wire.frames import VARINT, tag, varint

# Seconds after which an unconfirmed envelope counts as lost.
_CONFIRM_SECONDS = 3.0
# Seconds that a queue rests after a send that failed, since the next one would fail as well.
_REST_SECONDS = 0.1
# Seconds that a broker may be away while new requests still wait for it; later they are refused at
# once. 3.0: a broker that only reconnects is back by then.
_PATIENCE_SECONDS = 3.0

# The largest timeout that an item has room for.
_LONGEST_MS = 2**32 - 1
_KEY = tag(work_pb2.WorkEnvelope, "key")
_ITEM = tag(work_pb2.WorkEnvelope, "items")
_GROUP = tag(work_pb2.WorkEnvelope, "groups")
_FORM = tag(work_pb2.WorkGroup, "form")
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
        groups: GroupDispatch,
        end: End,
        wake: Callable[[OutboundQueue], None],
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Calls `wake` to have `send` called for a queue in the next turn of the loop."""
        self._broker = broker
        self._reply_to = reply_to
        self._groups = groups
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
        cut = queue.cut(now)
        parts: list[PendingGroup] = []
        for group, taken in cut.members.items():
            parts.append(self._groups.sent(group, taken, now))
        for request in cut.late:
            outcome, reason = _too_late(request.deadline - now)
            self._end(request, outcome, reason)
        for group, index in cut.late_members:
            outcome, reason = _too_late(group.work.deadlines[index] - now)
            self._groups.end(group, [index], outcome, reason)
        if cut.count:
            queue.sends += 1
            batch: list[Ticket] = [*cut.requests, *parts]
            message = self._message(queue.key, cut.requests, parts, now)
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

    def _message(
        self,
        key: str,
        requests: Sequence[PendingRequest],
        parts: Sequence[PendingGroup],
        now: float,
    ) -> Message:
        items = [
            (request.body, max(1, int((request.deadline - now) * 1000))) for request in requests
        ]
        for request in requests:
            request.body = b""
        longest = max([timeout_ms for _, timeout_ms in items], default=0)
        groups = []
        for part in parts:
            group, timeout_ms = encode_group(part, now)
            groups.append(group)
            longest = max(longest, timeout_ms)
        body = encode(key, items, groups)
        return Message(body=body, reply_to=self._reply_to, expiration_ms=longest)

    def _post(self, queue: OutboundQueue, message: Message) -> asyncio.Future[None]:
        timeout = min(_CONFIRM_SECONDS, message.expiration_ms / 1000)
        return self._broker.post(queue.spec.name, message, timeout=timeout)

    def _declare(self, queue: OutboundQueue, batch: Sequence[Ticket], message: Message) -> None:
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
        batch: Sequence[Ticket],
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

    def _failed(self, queue: OutboundQueue, batch: Sequence[Ticket], error: ServiceError) -> None:
        now = self._clock()
        queue.declared = False
        queue.rests_until = now + _REST_SECONDS
        reason = BROKER_DOWN
        if isinstance(error, Overloaded):
            reason = error.metadata["reason_detail"] = BROKER_FULL
        late = DeadlinePassed(
            "the broker did not confirm the request before its deadline; give the call more time"
        )
        # No send outlasts its requests: to whose time is over, a slow broker is no broken one. Its
        # timeout, which was set to the last of their deadlines, may have come a moment early.
        soon = now + EARLY_SECONDS
        requests: list[PendingRequest] = []
        for ticket in batch:
            if isinstance(ticket, PendingGroup):
                requests += self._groups.fail(ticket, error, reason, late, soon)
            else:
                requests.append(ticket)
        for request in requests:
            if request.deadline < soon:
                self._end(request, late, DEADLINE_PASSED)
            else:
                self._end(request, error, reason)


def _too_late(left: float) -> tuple[ServiceError, str]:
    """Returns the error of a request whose turn comes `left` seconds before its deadline, too late
    for a reply, and the reason to count.
    """
    if left >= LEAST_SECONDS:
        return hopeless(left), UNREACHABLE
    late = DeadlinePassed(
        "the deadline passed when the request's turn came; give the call more time"
    )
    return late, DEADLINE_PASSED


def encode_group(part: PendingGroup, now: float) -> tuple[bytes, int]:
    """Returns a part as a field of a WorkEnvelope, and the longest timeout of its members in
    milliseconds.
    """
    work = part.work
    members = part.members
    deadlines = [work.deadlines[index] for index in members]
    timeouts = [int((deadline - now) * 1000) for deadline in deadlines]
    if min(timeouts) < 1:
        timeouts = [max(1, timeout_ms) for timeout_ms in timeouts]
    head = work_pb2.WorkGroup(
        id=part.id,
        timeouts_ms=timeouts,
        request_ids=_column(work.request_ids, members),
        traceparents=_column(work.traceparents, members),
    ).SerializeToString()
    # The form holds the data: it is not copied into a message of its own once more.
    form = work.form_of(members).SerializeToString()
    size = varint(len(form))
    total = varint(len(head) + len(_FORM) + len(size) + len(form))
    return b"".join((_GROUP, total, head, _FORM, size, form)), max(timeouts)


def _column(values: Sequence[str], members: Sequence[int]) -> Sequence[str]:
    """Returns the elements of a column, which may be empty, that belong to these members."""
    return values if len(values) in (0, len(members)) else [values[index] for index in members]


def encode(key: str, items: Iterable[tuple[bytes, int]], groups: Iterable[bytes] = ()) -> bytes:
    """Returns a serialised WorkEnvelope of serialised items, each with its timeout in milliseconds,
    and of groups as `encode_group` returns them.

    An item is so serialised once, when it is submitted, and only its timeout when it is sent:
    protobuf reads fields in any order, and messages that are written one after the other as one.
    """
    name = key.encode()
    parts = [_KEY, varint(len(name)), name]
    for body, timeout_ms in items:
        timeout = _TIMEOUT + varint(min(timeout_ms, _LONGEST_MS))
        parts += (_ITEM, varint(len(body) + len(timeout)), body, timeout)
    parts += groups
    return b"".join(parts)
