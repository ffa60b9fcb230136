"""Queues the requests of one version by priority, then by arrival, and forms batches. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.batchability import Batchability
from services.runtime.requests.members import cut, fitting, still_open
from services.runtime.requests.request import Request, RequestLayout

# The requests of one priority by layout; under None those that share no call.
_Level = dict[RequestLayout | None, deque[Request]]


class RequestQueue:
    """Requests that wait for a slot. Requests that were answered meanwhile are skipped.

    A request of several members is cut where a call ends, so that calls have the rows that they
    would have if the members waited one by one.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        # Requests of one layout stand in a queue of their own, so that forming a batch looks at no
        # other requests.
        self._levels: dict[int, _Level] = {}
        self._last = 0

    def __bool__(self) -> bool:
        return bool(self._levels)

    def add(self, request: Request) -> None:
        """Queues the request behind all others of its priority."""
        self._last += 1
        request.order = self._last
        layout = _queue_key(request)
        level = self._levels.setdefault(request.priority, {})
        queue = level.get(layout)
        if queue is None:
            level[layout] = deque((request,))
        else:
            queue.append(request)

    def take(self, now: float, limit: int) -> tuple[list[Request], float]:
        """Returns the requests of the next call, and when to look again: inf if nothing is left.

        The first request is the oldest of the highest priority. Requests of its layout follow up to
        `limit` rows, as many as the policy's preferred batch sizes allow. A request whose policy
        lets it wait for a larger batch is skipped until its delay is over; with nothing but such
        requests the list is empty.
        """
        later = float("inf")
        policy = self._policy
        for first in self._heads(now):
            if not _may_batch(first):
                return self._pop_first(first), self._next_look(now)
            if not policy.preferred and not policy.max_delay:
                return self._pop_batch(first.layout, limit, now), self._next_look(now)
            rows = self._available(first.layout, limit, now)
            due = first.work.received + policy.max_delay
            if due <= now or rows >= policy.rows_to_start(limit):
                rows = policy.batch_rows(rows)
                return self._pop_batch(first.layout, rows, now), self._next_look(now)
            later = min(later, due)
        return [], later

    def _next_look(self, now: float) -> float:
        return now if self._levels else float("inf")

    def purge(self, now: float) -> None:
        """Drops requests and members that were answered while they waited, and requests past
        their deadline.
        """
        for priority, level in list(self._levels.items()):
            for layout, queue in list(level.items()):
                kept = deque([request for request in still_open(queue) if request.deadline > now])
                if kept:
                    level[layout] = kept
                else:
                    del level[layout]
            if not level:
                del self._levels[priority]

    def _heads(self, now: float) -> list[Request]:
        """Returns the first request of each queue: highest priority first, then oldest first."""
        heads = []
        for priority in sorted(self._levels):
            level = self._levels[priority]
            for layout in list(level):
                queue = level[layout]
                while queue and not _waits(queue[0], now):
                    queue.popleft()
                if queue:
                    heads.append(queue[0])
                else:
                    del level[layout]
            if not level:
                del self._levels[priority]
        if len(heads) > 1:
            heads.sort(key=lambda request: (request.priority, request.order))
        return heads

    def _queues_of(self, layout: RequestLayout) -> Iterator[deque[Request]]:
        for priority in sorted(self._levels):
            queue = self._levels[priority].get(layout)
            if queue is not None:
                yield queue

    def _available(self, layout: RequestLayout, limit: int, now: float) -> int:
        """Returns the rows that one call could take: ≤ `limit`, or those of the first request."""
        rows = 0
        for queue in self._queues_of(layout):
            for request in queue:
                if _waits(request, now):
                    if rows + request.rows > limit:
                        each = request.rows // (len(request.members) or 1)
                        return rows + fitting(request, limit - rows) * each or each
                    rows += request.rows
        return rows

    def _pop_batch(self, layout: RequestLayout, limit: int, now: float) -> list[Request]:
        """Removes and returns at least one request; all of them lease the first one's model."""
        taken: list[Request] = []
        rows = 0
        for queue in list(self._queues_of(layout)):
            while queue:
                request = queue[0]
                if _waits(request, now):
                    # A model that was evicted and loaded again is another object.
                    if taken and request.work.model is not taken[0].work.model:
                        return taken
                    if rows + request.rows > limit:
                        # The first item or member goes even if its rows alone exceed the limit.
                        number = fitting(request, limit - rows) or not taken
                        if not number:
                            return taken
                        if number < len(request.members):
                            head, queue[0] = cut(request, number)
                            return [*taken, head]
                    rows += request.rows
                    taken.append(request)
                queue.popleft()
            self._forget(request.priority, layout)
        return taken

    def _pop_first(self, first: Request) -> list[Request]:
        layout = _queue_key(first)
        queue = self._levels[first.priority][layout]
        queue.popleft()
        if not queue:
            self._forget(first.priority, layout)
        return [first]

    def _forget(self, priority: int, layout: RequestLayout | None) -> None:
        level = self._levels[priority]
        del level[layout]
        if not level:
            del self._levels[priority]


def _queue_key(request: Request) -> RequestLayout | None:
    """Returns the request's layout, or None for a request that shares no call."""
    return request.layout if request.layout.by_rows and not request.streams else None


def _may_batch(request: Request) -> bool:
    return (
        _queue_key(request) is not None
        and request.layout.method.batchability is not Batchability.NEVER
    )


def _waits(request: Request, now: float) -> bool:
    return request.open and request.deadline > now
