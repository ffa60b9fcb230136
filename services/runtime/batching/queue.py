"""What waits for one version: by priority, then by age; of one form as much as makes one call.
Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.batchability import Joining
from services.runtime.requests.layouts import Form
from services.runtime.requests.request import Request

_Queues = dict[Form | None, deque[Request]]


class Waiting:
    """Requests that wait for a slot. Those that were answered while they waited are passed over."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        # Requests of a form by rows wait with their like, so that a call can take them without
        # looking at others.
        self._levels: dict[int, _Queues] = {}
        self._last = 0

    def __bool__(self) -> bool:
        return bool(self._levels)

    def add(self, request: Request) -> None:
        """Behind all of its priority."""
        self._last += 1
        request.order = self._last
        form = _queue_of(request)
        level = self._levels.setdefault(request.priority, {})
        queue = level.get(form)
        if queue is None:
            level[form] = deque((request,))
        else:
            queue.append(request)

    def take(self, now: float, limit: int) -> tuple[list[Request], float]:
        """The requests of the next call, of at most `limit` rows if it is more than one; else when
        to look again.

        The first is the oldest of the highest priority; those of its form follow, as many as the
        policy's preferred sizes allow. One that may wait for company is passed over until its time
        has come. The time is inf if nothing waits.
        """
        later, policy = float("inf"), self._policy
        for first in self._heads(now):
            if not _joins(first):
                return self._pop_first(first), later
            if not policy.preferred and not policy.max_delay:
                return self._pop(first.form, limit, now), later
            rows = self._available(first.form, limit, now)
            due = first.work.received + policy.max_delay
            if due <= now or rows >= policy.enough(limit):
                return self._pop(first.form, policy.cut(rows), now), later
            later = min(later, due)
        return [], later

    def purge(self, now: float) -> None:
        """Forgets what was answered while it waited, and what is past its deadline."""
        for priority, level in list(self._levels.items()):
            for form, queue in list(level.items()):
                kept = deque(request for request in queue if _waits(request, now))
                if kept:
                    level[form] = kept
                else:
                    del level[form]
            if not level:
                del self._levels[priority]

    def _heads(self, now: float) -> list[Request]:
        """The first of each queue, highest priority first, then oldest first."""
        heads = []
        for priority in sorted(self._levels):
            level = self._levels[priority]
            for form in list(level):
                queue = level[form]
                while queue and not _waits(queue[0], now):
                    queue.popleft()
                if queue:
                    heads.append(queue[0])
                else:
                    del level[form]
            if not level:
                del self._levels[priority]
        if len(heads) > 1:
            heads.sort(key=lambda request: (request.priority, request.order))
        return heads

    def _alike(self, form: Form) -> Iterator[deque[Request]]:
        for priority in sorted(self._levels):
            queue = self._levels[priority].get(form)
            if queue is not None:
                yield queue

    def _available(self, form: Form, limit: int, now: float) -> int:
        """Rows that one call could take, at most `limit` unless the first request has more."""
        rows = 0
        for queue in self._alike(form):
            for request in queue:
                if _waits(request, now):
                    if rows and rows + request.rows > limit:
                        return rows
                    rows += request.rows
        return rows

    def _pop(self, form: Form, limit: int, now: float) -> list[Request]:
        """At least one request; the model is that of the first."""
        taken: list[Request] = []
        rows = 0
        for queue in list(self._alike(form)):
            while queue:
                request = queue[0]
                if _waits(request, now):
                    if taken and (
                        rows + request.rows > limit or request.work.model is not taken[0].work.model
                    ):
                        return taken
                    rows += request.rows
                    taken.append(request)
                queue.popleft()
            self._forget(request.priority, form)
        return taken

    def _pop_first(self, first: Request) -> list[Request]:
        form = _queue_of(first)
        queue = self._levels[first.priority][form]
        queue.popleft()
        if not queue:
            self._forget(first.priority, form)
        return [first]

    def _forget(self, priority: int, form: Form | None) -> None:
        level = self._levels[priority]
        del level[form]
        if not level:
            del self._levels[priority]


def _queue_of(request: Request) -> Form | None:
    """What its queue is kept under: its form if others may be like it, None for those that have no
    like.
    """
    return request.form if request.form.by_rows and not request.decoupled else None


def _joins(request: Request) -> bool:
    return _queue_of(request) is not None and request.form.method.joining is not Joining.NEVER


def _waits(request: Request, now: float) -> bool:
    return request.open and request.deadline > now
