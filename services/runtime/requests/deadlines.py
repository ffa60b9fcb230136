"""Which requests have run out of time. Pure: the owner asks at `next`, whatever the requests are
waiting for.
"""

from __future__ import annotations

from collections.abc import Collection

from services.runtime.requests.request import NEVER, InHand, Request


class Deadlines:
    """The messages in hand whose requests have deadlines.

    The next deadline is known, not an order of all: of the many deadlines that are set hardly one
    is ever reached, so setting one must cost nothing, and looking through what is in hand, which is
    bounded, may.
    """

    def __init__(self) -> None:
        self._works: set[InHand] = set()
        # No request runs out of time before this.
        self.next = NEVER

    def add(self, work: InHand) -> bool:
        """Watches the message's requests. Whether `next` came nearer."""
        nearest = min([request.deadline for request in work.requests], default=NEVER)
        if nearest == NEVER:
            return False
        self._works.add(work)
        if nearest >= self.next:
            return False
        self.next = nearest
        return True

    def remove(self, work: InHand) -> None:
        """Its requests are answered."""
        self._works.discard(work)

    def named(self, ids: Collection[str]) -> list[Request]:
        """The open requests of these ids."""
        return [
            request
            for work in self._works
            for request in work.requests
            if request.open and request.id in ids
        ]

    def passed(self, now: float) -> list[Request]:
        """The open requests whose deadline has passed; moves `next` on to those that have time
        left.
        """
        late: list[Request] = []
        self.next = NEVER
        for work in self._works:
            for request in work.requests:
                if not request.open:
                    continue
                if request.deadline <= now:
                    late.append(request)
                elif request.deadline < self.next:
                    self.next = request.deadline
        return late
