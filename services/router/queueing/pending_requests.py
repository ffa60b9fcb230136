"""Requests that wait for an answer. Every ticket ends exactly once: by its answer, an error, its
deadline or its caller.

A late or repeated answer finds no ticket and is ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from services.router.queueing.timing_wheel import Deadlines
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import ServiceError

Outcome = work_pb2.WorkReply | ServiceError
# Called with each answer; nothing follows an error or an answer without `more`.
Answered = Callable[[Outcome], None]

_log = structlog.get_logger("pending")


class Holder(Protocol):
    """Where a ticket waits or is counted as under way."""

    @property
    def key(self) -> str: ...

    def leave(self, ticket: Ticket) -> None:
        """The ticket is not to be sent, or not waited for, any more."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way."""

    id: str
    holder: Holder
    # None for a caller that went away.
    answered: Answered | None
    deadline: float
    tenant: str = ""
    priority: int = 1
    cost: int = 1
    # The item as it is sent, without its timeout.
    body: bytes = b""
    # 0 while it waits here.
    sent_at: float = field(default=0.0, init=False)
    # Sent, and no answer has come yet.
    underway: bool = field(default=False, init=False)
    # Given up, but still worked on somewhere.
    lingers: bool = field(default=False, init=False)


class PendingTable:
    """Tickets by id, and how many of them each key has."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._deadlines: Deadlines[Ticket] = Deadlines()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tickets)

    def count(self, key: str) -> int:
        """Tickets of this key."""
        return self._counts[key]

    def add(self, ticket: Ticket) -> None:
        self._tickets[ticket.id] = ticket
        self._counts[ticket.holder.key] += 1
        self._deadlines.add(ticket)

    def get(self, id: str) -> Ticket | None:
        """The ticket of this id, unless it has ended."""
        return self._tickets.get(id)

    def due(self, now: float) -> list[Ticket]:
        """The tickets whose deadline has passed, each once; they are to be ended."""
        return self._deadlines.due(now)

    def linger(self, ticket: Ticket, until: float) -> None:
        """Keeps a ticket whose caller was told, for its answer says what the runtime was busy with;
        due once more.
        """
        self._deadlines.discard(ticket)
        ticket.answered, ticket.lingers, ticket.deadline = None, True, until
        self._deadlines.add(ticket)

    def tell(self, ticket: Ticket, outcome: Outcome) -> None:
        """Tells who waits; a caller that fails at that is no concern of the others."""
        if ticket.answered is None:
            return
        try:
            ticket.answered(outcome)
        except Exception:
            _log.exception("answer_not_taken", id=ticket.id)

    def end(self, ticket: Ticket, outcome: Outcome | None) -> bool:
        """Ends a ticket; without an outcome nobody is told. False if it had ended before."""
        if self._tickets.pop(ticket.id, None) is None:
            return False
        key = ticket.holder.key
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        self._deadlines.discard(ticket)
        ticket.holder.leave(ticket)
        if outcome is not None:
            self.tell(ticket, outcome)
        ticket.answered = None
        return True

    def fail_key(self, key: str, error: ServiceError) -> None:
        """Ends every ticket of a key."""
        for ticket in [ticket for ticket in self._tickets.values() if ticket.holder.key == key]:
            self.end(ticket, error)

    def fail_sent(self, error: ServiceError) -> None:
        """Ends every ticket that was sent; those that wait to be sent stay."""
        for ticket in [ticket for ticket in self._tickets.values() if ticket.sent_at]:
            self.end(ticket, error)
