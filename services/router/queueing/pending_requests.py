"""Requests that wait for a reply, by id and by deadline.

Every request ends exactly once: by its last reply, an error, its deadline or its caller. A late or
repeated reply finds no request and is ignored. Pure; time is an argument, in seconds of any
monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import ServiceError

Outcome = work_pb2.WorkReply | ServiceError
# Called with each reply. Nothing follows an error or a reply without `more`.
ReplyHandler = Callable[[Outcome], None]

# Seconds between two looks at the deadlines; a caller hears of its deadline up to one tick late.
TICK_SECONDS = 0.01

_log = structlog.get_logger("pending")


class RequestQueue(Protocol):
    """The queue that a request waits in, or is counted as under way in."""

    @property
    def key(self) -> str: ...

    def leave(self, request: PendingRequest) -> None:
        """Takes out a request that is neither to be sent nor waited for any more."""
        ...


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
    # When it was sent; 0 while it waits here.
    sent_at: float = field(default=0.0, init=False)
    # Sent, and no reply has come yet.
    underway: bool = field(default=False, init=False)
    # Its caller was told DeadlinePassed, but a runtime may still work on it.
    lingers: bool = field(default=False, init=False)


# A request and a reply to it.
RequestReply = tuple[PendingRequest, work_pb2.WorkReply]


class Dated(Protocol):
    """A thing with an id and a deadline."""

    @property
    def id(self) -> str: ...
    @property
    def deadline(self) -> float: ...


T = TypeVar("T", bound=Dated)


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
        tick = int(item.deadline / TICK_SECONDS) + 1
        slot = self._ticks.get(tick)
        if slot is None:
            if not self._ticks or tick <= self._passed:
                self._passed = tick - 1
            slot = self._ticks[tick] = {}
        slot[item.id] = item

    def discard(self, item: T) -> None:
        """Takes out `item` if it is there."""
        tick = int(item.deadline / TICK_SECONDS) + 1
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
        self._deadlines: TimingWheel[PendingRequest] = TimingWheel()
        self._counts: Counter[str] = Counter()
        # Returns the request of an id, None if it has ended. The dictionary's own method: it is
        # called for every reply, and a method around it would double its cost.
        self.get = self._requests.get

    def __len__(self) -> int:
        return len(self._requests)

    def count(self, key: str) -> int:
        """Returns the number of requests of `key`."""
        return self._counts[key]

    def add(self, request: PendingRequest) -> None:
        """Waits for `request` from now on."""
        self._requests[request.id] = request
        self._counts[request.queue.key] += 1
        self._deadlines.add(request)

    def due(self, now: float) -> list[PendingRequest]:
        """Returns the requests whose deadline has passed, each once; the caller ends them."""
        return self._deadlines.due(now)

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

    def end(self, request: PendingRequest, outcome: Outcome | None) -> bool:
        """Ends a request and hands the outcome to its caller, unless it is None. Returns False for
        a request that had ended before.
        """
        if self._requests.pop(request.id, None) is None:
            return False
        key = request.queue.key
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        self._deadlines.discard(request)
        # A request that was sent and has had a reply takes no place in its queue any more.
        if request.underway or not request.sent_at:
            request.queue.leave(request)
        if outcome is not None:
            self.tell(request, outcome)
        request.on_reply = None
        return True

    def fail_key(self, key: str, error: ServiceError) -> None:
        """Ends every request of `key` with the error."""
        for request in [one for one in self._requests.values() if one.queue.key == key]:
            self.end(request, error)

    def fail_sent(self, error: ServiceError) -> None:
        """Ends every request that was sent with the error; those that wait to be sent stay."""
        for request in [one for one in self._requests.values() if one.sent_at]:
            self.end(request, error)
