"""Requests that wait for a reply, by id and by deadline.

Every request ends exactly once: by its last reply, an error, its deadline or its caller. A late or
repeated reply finds no request and is ignored. Pure; time is an argument, in seconds of any
monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

import structlog

from services.router.queueing.members import PendingGroup, RequestQueue
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import ServiceError

Outcome = work_pb2.WorkReply | ServiceError
# Called with each reply. Nothing follows an error or a reply without `more`.
ReplyHandler = Callable[[Outcome], None]

# Seconds between two looks at the deadlines; a caller hears of its deadline up to one tick late.
TICK_SECONDS = 0.01
# Seconds after its deadline for which a request that is sent still counts as under way. A runtime
# stops, or replies too late, within this time; the message of a runtime that died is gone as well.
LINGER_SECONDS = 1.0

_log = structlog.get_logger("pending")


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request until its last reply."""

    id: str
    queue: RequestQueue
    # None for a caller that went away.
    on_reply: ReplyHandler | None
    deadline: float
    tenant: str = ""
    priority: int = 1
    # Its share of a queue and of a send window, such as its number of rows.
    cost: int = 1
    # The serialised WorkItem without its timeout; empty once it is sent.
    body: bytes = b""
    # Bytes that it counts as while it waits.
    size: int = 0
    # When it was sent; 0 while it waits here.
    sent_at: float = field(default=0.0, init=False)
    # Sent, and no reply has come yet.
    underway: bool = field(default=False, init=False)
    # Its caller was told DeadlinePassed, but a runtime may still work on it.
    lingers: bool = field(default=False, init=False)
    # The number of requests that it stands for.
    count: ClassVar[int] = 1


# A request by itself, or members of a group.
Ticket = PendingRequest | PendingGroup
# A request and a reply to it.
RequestReply = tuple[PendingRequest, work_pb2.WorkReply]


class Dated(Protocol):
    """A thing with an id and a deadline."""

    id: str
    deadline: float


T = TypeVar("T", bound=Dated)


def tick_of(deadline: float) -> int:
    """Returns the number of the first tick after a deadline."""
    return int(deadline / TICK_SECONDS) + 1


class TimingWheel(Generic[T]):
    """A set of deadlines by tick: adding and discarding cost a dictionary entry each, so that a
    request that is answered leaves nothing behind.

    An item is due at the first tick after its deadline, never before it.
    """

    def __init__(self) -> None:
        self._ticks: dict[int, dict[str, T]] = {}
        # Every tick up to this one is empty.
        self._passed = 0

    def add(self, item: T) -> None:
        """Adds an item, due at the first tick after its deadline."""
        tick = tick_of(item.deadline)
        slot = self._ticks.get(tick)
        if slot is None:
            if not self._ticks or tick <= self._passed:
                self._passed = tick - 1
            slot = self._ticks[tick] = {}
        slot[item.id] = item

    def discard(self, item: T) -> None:
        """Takes out `item` if it is there."""
        tick = tick_of(item.deadline)
        slot = self._ticks.get(tick)
        if slot is not None and slot.pop(item.id, None) is not None and not slot:
            del self._ticks[tick]

    def due(self, now: float) -> list[T]:
        """Takes out and returns the items whose tick has come, earliest first."""
        found: list[T] = []
        last = int(now / TICK_SECONDS)
        while self._ticks and self._passed < last:
            self._passed += 1
            found += self._ticks.pop(self._passed, {}).values()
        return found


class PendingRequests:
    """Every request that has not ended, and the number of them by key."""

    def __init__(self) -> None:
        self._requests: dict[str, PendingRequest] = {}
        self._groups: dict[str, PendingGroup] = {}
        self._deadlines: TimingWheel[Ticket] = TimingWheel()
        self._counts: Counter[str] = Counter()
        # Returns the request of an id, None if it has ended. The dictionary's own method: it is
        # called for every reply, and a method around it would double its cost.
        self.get = self._requests.get
        # Returns the group of an id, None if nobody asks for it any more.
        self.group = self._groups.get

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def watched(self) -> bool:
        """True if any deadline is to be looked at."""
        return bool(self._requests or self._groups)

    def count(self, key: str) -> int:
        """Returns the number of requests of `key`."""
        return self._counts[key]

    def add(self, request: PendingRequest) -> None:
        """Waits for `request` from now on."""
        self._requests[request.id] = request
        self._counts[request.queue.key] += 1
        self._deadlines.add(request)

    def add_group(self, group: PendingGroup) -> None:
        """Waits for the members of a group from now on."""
        self._counts[group.queue.key] += group.cost
        self.add_part(group)

    def add_part(self, part: PendingGroup) -> None:
        """Waits for a part of a group whose members are waited for already."""
        self._groups[part.id] = part
        self._deadlines.add(part)

    def separate(self, group: PendingGroup, position: int, until: float | None = None) -> None:
        """Makes a member of a part that was sent a request of its own, which nobody waits for. With
        `until` its deadline has passed, and it is due once more then, as after `linger`.
        """
        deadline = group.work.deadlines[group.members[position]] if until is None else until
        request = PendingRequest(group.member_id(position), group.queue, None, deadline)
        request.sent_at = group.sent_at
        request.underway = True
        request.lingers = until is not None
        group.close(position)
        group.separated.append(position)
        self._requests[request.id] = request
        self._deadlines.add(request)

    def separated(self, group: PendingGroup) -> list[PendingRequest]:
        """Returns the requests that members of the group have become and that have not ended."""
        found = (self.get(group.member_id(position)) for position in group.separated)
        return [request for request in found if request is not None]

    def due(self, now: float) -> list[Ticket]:
        """Returns the requests whose deadline has passed, each once, which the caller ends; and the
        groups in which a member's may have passed, which the caller ends or has `wait_on`.
        """
        return self._deadlines.due(now)

    def wait_on(self, group: PendingGroup) -> None:
        """Has a group that was due be due again when the next of its members is. A part whose
        members have all ended is kept as long as one of them, by itself, awaits a reply.
        """
        if group.cost:
            group.deadline = group.nearest(group.rest())
        elif left := self.separated(group):
            group.deadline = max([request.deadline for request in left])
        else:
            self.forget(group)
            return
        self._deadlines.add(group)

    def linger(self, request: PendingRequest, until: float) -> None:
        """Keeps a request whose caller was told its end, since a late reply still says what the
        runtime was busy with. It is due once more, at `until`.
        """
        self._deadlines.discard(request)
        request.on_reply = None
        request.lingers = True
        request.deadline = until
        self._deadlines.add(request)

    def tell(self, request: PendingRequest, outcome: Outcome) -> None:
        """Hands `outcome` to the caller. A handler that raises is logged and harms no other."""
        if request.on_reply is None:
            return
        try:
            request.on_reply(outcome)
        except Exception:
            _log.exception("reply_handler_failed", id=request.id)

    def tell_members(self, group: PendingGroup, members: Sequence[int], outcome: Outcome) -> None:
        """Hands `outcome` to the callers of these members, as `tell` does."""
        try:
            group.work.on_reply(members, outcome)
        except Exception:
            _log.exception("reply_handler_failed", id=group.id)
        group.work.ended(len(members))

    def end(self, request: PendingRequest, outcome: Outcome | None) -> bool:
        """Ends a request and hands the outcome to its caller, unless it is None. Returns False for
        a request that had ended before.
        """
        if self._requests.pop(request.id, None) is None:
            return False
        self._uncount(request.queue.key, 1)
        self._deadlines.discard(request)
        # A request that was sent and has had a reply takes no place in its queue any more.
        if request.underway or not request.sent_at:
            request.queue.leave(request)
        if outcome is not None:
            self.tell(request, outcome)
        request.on_reply = None
        return True

    def end_members(
        self, group: PendingGroup, members: Sequence[int], outcome: Outcome | None
    ) -> None:
        """Ends members that the group and its queue do not hold any more, and hands the outcome to
        their callers, unless it is None.
        """
        self._uncount(group.queue.key, len(members))
        if outcome is not None:
            self.tell_members(group, members, outcome)
        if not group.cost and not (group.sent_at and self.separated(group)):
            self.forget(group)

    def end_group(self, group: PendingGroup, outcome: Outcome) -> int:
        """Ends all members of a group with the outcome; returns their number."""
        members = group.rest()
        group.queue.leave(group)
        group.close_all()
        if members:
            self.end_members(group, members, outcome)
        return len(members)

    def forget(self, group: PendingGroup) -> None:
        """Drops a group whose members have all ended."""
        if self._groups.pop(group.id, None) is not None:
            self._deadlines.discard(group)
        if group in group.work.parts:
            group.work.parts.remove(group)

    def _uncount(self, key: str, count: int) -> None:
        self._counts[key] -= count
        if not self._counts[key]:
            del self._counts[key]

    def fail_key(self, key: str, error: ServiceError) -> None:
        """Ends every request of `key` with the error."""
        self._fail([one for one in self._requests.values() if one.queue.key == key], error)
        self._fail([one for one in self._groups.values() if one.queue.key == key], error)

    def fail_sent(self, error: ServiceError) -> None:
        """Ends every request that was sent with the error; those that wait to be sent stay."""
        self._fail([one for one in self._requests.values() if one.sent_at], error)
        self._fail([one for one in self._groups.values() if one.sent_at], error)

    def _fail(self, tickets: Iterable[Ticket], error: ServiceError) -> None:
        for ticket in tickets:
            if isinstance(ticket, PendingGroup):
                self.end_group(ticket, error)
            else:
                self.end(ticket, error)
