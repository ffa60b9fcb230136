"""A store of ledger entries in memory, with the faults a database has: it goes away, is slow, or
loses a race.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from services.controlplane.audit.chain import Entry, Head
from services.controlplane.audit.ledger import SequenceTaken
from stellwerk.wire.errors import Unavailable


class FakeEntries:
    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.noted = Head()
        self.away = False
        self.inserts = 0
        # Writes wait for this, so that a test can let callers gather.
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the database does not answer; try again in a moment")

    async def insert(self, entries: Sequence[Entry]) -> None:
        self.entered.set()
        await self.open.wait()
        self._reach()
        self.inserts += 1
        for index, entry in enumerate(entries):
            if entry.sequence in self.entries:
                raise SequenceTaken(index)
            self.entries[entry.sequence] = entry
            await asyncio.sleep(0)

    async def tail(self) -> Head:
        self._reach()
        last = self.entries[max(self.entries)] if self.entries else None
        await asyncio.sleep(0)
        return Head(last.sequence, last.hash) if last else Head()

    async def head(self) -> Head:
        self._reach()
        return self.noted

    async def note_head(self, head: Head) -> None:
        self._reach()
        if head.sequence > self.noted.sequence:
            self.noted = head

    async def scan(self) -> AsyncIterator[list[Entry]]:
        self._reach()
        for sequence in sorted(self.entries):
            yield [self.entries[sequence]]

    async def page(self, before: int, limit: int, principal: str, resource: str) -> list[Entry]:
        self._reach()
        found = [
            entry
            for entry in self.entries.values()
            if (not before or entry.sequence < before)
            and (not principal or entry.principal == principal)
            and (not resource or entry.resource == resource)
        ]
        return sorted(found, key=lambda entry: -entry.sequence)[:limit]
