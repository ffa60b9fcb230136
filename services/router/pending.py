"""Requests that wait for an answer. Every entry ends exactly once: by its answer, an error, its deadline or its caller.

A late or repeated answer finds no entry and is ignored.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from dataclasses import dataclass

from services.wire.errors import DeadlinePassed, ServiceError
from stellwerk.job.v1 import work_pb2


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    answer: asyncio.Future[work_pb2.WorkReply]


class PendingTable:
    """Entries by id, and how many of them each key has."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, key: str) -> int:
        """Entries of this key."""
        return self._counts[key]

    def add(self, id: str, key: str, deadline: float) -> asyncio.Future[work_pb2.WorkReply]:
        """A new entry; the future gets its answer, or raises its error."""
        future: asyncio.Future[work_pb2.WorkReply] = asyncio.get_running_loop().create_future()
        self._entries[id] = Entry(key, future)
        self._counts[key] += 1
        heapq.heappush(self._deadlines, (deadline, id))
        return future

    def _take(self, id: str) -> Entry | None:
        entry = self._entries.pop(id, None)
        if entry is not None:
            self._counts[entry.key] -= 1
            if not self._counts[entry.key]:
                del self._counts[entry.key]
        return entry

    def settle(self, reply: work_pb2.WorkReply) -> bool:
        """Hands an answer to who waits for it; False if nobody does any more."""
        entry = self._take(reply.id)
        if entry is None or entry.answer.done():
            return False
        entry.answer.set_result(reply)
        return True

    def fail(self, id: str, error: ServiceError) -> None:
        """Ends one entry with an error."""
        entry = self._take(id)
        if entry is not None and not entry.answer.done():
            entry.answer.set_exception(error)

    def forget(self, id: str) -> None:
        """The caller does not wait any more."""
        self._take(id)

    def fail_key(self, key: str, error: ServiceError) -> None:
        """Ends every entry of a key."""
        for id in [id for id, entry in self._entries.items() if entry.key == key]:
            self.fail(id, error)

    def fail_all(self, error: ServiceError) -> None:
        """Ends every entry."""
        for id in list(self._entries):
            self.fail(id, error)

    def expire(self, now: float) -> int:
        """Ends the entries whose deadline has passed; returns how many."""
        expired = 0
        while self._deadlines and self._deadlines[0][0] <= now:
            _, id = heapq.heappop(self._deadlines)
            if id in self._entries:
                expired += 1
                self.fail(id, DeadlinePassed("no runtime answered before the deadline; give the call more time"))
        return expired
