"""Knows the messages in hand: their nearest deadline, and whom a cancellation names. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from services.runtime.requests.members import first_deadline, late, named
from services.runtime.requests.request import NEVER, Request, WorkMessage


class WorkInHand:
    """The messages in hand that have deadlines, and the time at which to look at them again. Pure.

    Knows the nearest deadline, not an order of all. Hardly any deadline is ever reached, so adding
    one must cost nothing, while a scan over the messages in hand, which are bounded, may.
    """

    def __init__(self) -> None:
        self._works: set[WorkMessage] = set()
        # Forgets a message, whose requests are answered. The set's own method, since it is called
        # for every message.
        self.remove = self._works.discard
        # No deadline passes before this time.
        self.next = NEVER

    def add(self, work: WorkMessage) -> bool:
        """Watches the message's requests. Returns whether `next` moved nearer."""
        requests = work.requests
        nearest = min([request.deadline for request in requests], default=NEVER)
        for request in [request for request in requests if request.group is not None]:
            nearest = min(nearest, first_deadline(request))
        if nearest == NEVER:
            return False
        self._works.add(work)
        if nearest >= self.next:
            return False
        self.next = nearest
        return True

    def find(self, ids: Collection[str], members: Mapping[str, Collection[int]]) -> list[Request]:
        """Returns the open requests of items with these ids, and of these members by group id."""
        found: list[Request] = []
        for work in self._works:
            for request in work.requests:
                if request.group is None:
                    if request.open and request.id in ids:
                        found.append(request)
                elif request.id in members:
                    found += named(request, members[request.id])
        return found

    def expired(self, now: float) -> list[Request]:
        """Returns the open requests, and requests of the open members, whose deadline has passed;
        moves `next` to the next deadline.
        """
        expired: list[Request] = []
        self.next = NEVER
        for work in self._works:
            for request in work.requests:
                if request.group is not None:
                    of_group, nearest = late(request, now)
                    expired += of_group
                    self.next = min(self.next, nearest)
                elif not request.open:
                    continue
                elif request.deadline <= now:
                    expired.append(request)
                elif request.deadline < self.next:
                    self.next = request.deadline
        return expired
