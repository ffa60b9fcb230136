"""The audit ledger at work: appends in one order, however many callers there are, and answers only
what is durable.

Group commit: what arrives while a write is in flight goes into the next write together; a lone
record waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

from services.chassis.futures import settle
from services.controlplane.audit.chain import Check, Entry, Finding, Head, extend
from stellwerk.controlplane.v1 import audit_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput, Overloaded, Unavailable

# More than a service lets wait while the ledger is away; such a lot must not be refused for being
# one.
MAX_RECORDS_PER_CALL = 10_000
# Records that may wait for the database; beyond it callers are told to come back.
_MAX_WAITING = 20_000
_MAX_BATCH = 1000
# What enters the ledger from outside is bounded here; longer values are cut, never refused: a
# refusal must be recorded.
_MAX_TEXT = 256
_MAX_RESOURCE = 1024
_OURSELVES = "controlplane"
# A second writer may take the numbers first; each round one of us gets on.
_MAX_ROUNDS = 50


class SequenceTaken(Exception):
    """Another writer was first. `written` entries of the batch, from its start, are in all the
    same.
    """

    def __init__(self, written: int) -> None:
        super().__init__(written)
        self.written = written


class EntryStore(Protocol):
    """Where entries are kept, by number. Every method raises Unavailable when the store cannot be
    reached.
    """

    async def insert(self, entries: Sequence[Entry]) -> None:
        """Keeps the entries in order, durably. Raises SequenceTaken when a number is in use."""
        ...

    async def tail(self) -> Head:
        """The last entry's number and hash."""
        ...

    async def head(self) -> Head:
        """The head as it was noted down beside the entries."""
        ...

    async def note_head(self, head: Head) -> None:
        """Notes the head down; never moves it back."""
        ...

    def scan(self) -> AsyncIterator[list[Entry]]:
        """All entries in order of number, in lots."""
        ...

    async def page(self, before: int, limit: int, principal: str, resource: str) -> list[Entry]:
        """Entries before a number (0: from the newest), newest first, filtered where a filter is
        not empty.
        """
        ...


@dataclass(slots=True)
class _Waiting:
    records: Sequence[pb.AuditRecord]
    done: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Ledger:
    """Appends to, lists and verifies the ledger."""

    def __init__(self, store: EntryStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._head: Head | None = None
        self._furthest = Head()
        self._waiting: list[_Waiting] = []
        self._queued = 0
        self._writer: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[pb.AuditRecord]) -> None:
        """Adds the records in order; they are durable when this returns. Without a `service` they
        are our own.

        Raises InvalidInput for a record without a kind, Overloaded, or Unavailable (they may be in
        all the same).
        """
        await self.append_counted(records)

    async def append_counted(self, records: Sequence[pb.AuditRecord]) -> int:
        """As `append`; returns the number of the last record, 0 if there was none to add."""
        if not records:
            return 0
        if len(records) > MAX_RECORDS_PER_CALL:
            raise InvalidInput(
                f"at most {MAX_RECORDS_PER_CALL} records are taken in one call", field="records"
            )
        if any(record.kind not in _KINDS for record in records):
            raise InvalidInput(
                "every record must say its kind: intent, outcome or refusal", field="kind"
            )
        if self._queued + len(records) > _MAX_WAITING:
            raise Overloaded(
                "the audit ledger has more to write than it can; try again in a moment"
            )
        waiting = _Waiting(records)
        self._waiting.append(waiting)
        self._queued += len(records)
        if self._writer is None or self._writer.done():
            # In a context of its own: it writes for many callers, not for the one that happened to
            # start it.
            self._writer = asyncio.create_task(self._write_waiting(), context=Context())
        return await waiting.done

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._writer is not None:
            await self._writer

    async def page(
        self, before: int, limit: int, principal: str = "", resource: str = ""
    ) -> list[Entry]:
        """Entries newest first; see EntryStore.page."""
        return await self._store.page(before, limit, principal, resource)

    async def verify(self, expected: Head | None = None) -> Finding:
        """Recomputes the whole chain. It must pass through the noted head, the furthest this
        process has written, and `expected`."""
        anchors = [await self._store.head(), self._furthest, *([expected] if expected else [])]
        check = Check(anchors)
        async for entries in self._store.scan():
            if not check.feed(entries):
                break
        return check.finish()

    async def _write_waiting(self) -> None:
        while self._waiting:
            # Who has given up in the meantime may have been told that nothing was written: so
            # nothing is.
            batch = [waiting for waiting in self._take() if not waiting.done.done()]
            if not batch:
                continue
            entries = [
                _entry(record, int(self._clock() * 1000))
                for waiting in batch
                for record in waiting.records
            ]
            try:
                numbers = await self._write(entries)
            except Exception as exc:
                # Whatever went wrong, what the store holds now is unknown: look before the next
                # write.
                self._head = None
                for waiting in batch:
                    settle(waiting.done, exc)
                continue
            written = 0
            for waiting in batch:
                written += len(waiting.records)
                settle(waiting.done, numbers[written - 1])
            await self._note_head()

    async def _note_head(self) -> None:
        """After the callers have their answer: a head that lags behind for a moment does no harm.

        Whatever goes wrong here, there may be others waiting, and the next head is noted after
        them.
        """
        try:
            await self._store.note_head(self._furthest)
        except Exception:
            self._head = None

    async def _resume(self) -> Head:
        """Where the chain goes on. If its end was cut off or changed, it goes on from where it had
        been, so that the damage stays visible for ever instead of being written over."""
        candidates = [self._furthest, await self._store.head(), await self._store.tail()]
        return max(candidates, key=lambda head: head.sequence)

    def _take(self) -> list[_Waiting]:
        count, size = 0, 0
        while count < len(self._waiting) and (
            not count or size + len(self._waiting[count].records) <= _MAX_BATCH
        ):
            size += len(self._waiting[count].records)
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._queued -= size
        return batch

    async def _write(self, entries: Sequence[Entry]) -> list[int]:
        """Writes all entries and returns their numbers."""
        numbers: list[int] = []
        for _ in range(_MAX_ROUNDS):
            head = self._head if self._head is not None else await self._resume()
            chained = extend(head, entries)
            try:
                await self._store.insert(chained)
            except SequenceTaken as taken:
                numbers += [entry.sequence for entry in chained[: taken.written]]
                self._head, entries = None, entries[taken.written :]
                continue
            self._head = self._furthest = Head(chained[-1].sequence, chained[-1].hash)
            return numbers + [entry.sequence for entry in chained]
        raise Unavailable("the audit ledger is being written by too many at once; try again")


_KINDS = frozenset(
    {pb.AuditRecord.KIND_INTENT, pb.AuditRecord.KIND_OUTCOME, pb.AuditRecord.KIND_REFUSAL}
)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _entry(record: pb.AuditRecord, time_ms: int) -> Entry:
    return Entry(
        sequence=0,
        time_ms=time_ms,
        kind=int(record.kind),
        principal=_cut(record.principal, _MAX_TEXT),
        method=_cut(record.method, _MAX_TEXT),
        resource=_cut(record.resource, _MAX_RESOURCE),
        request_id=_cut(record.request_id, _MAX_TEXT),
        service=_cut(record.service or _OURSELVES, _MAX_TEXT),
        outcome=_cut(record.outcome, _MAX_TEXT),
        count=max(int(record.count), 1),
        peer=_cut(record.peer, _MAX_TEXT),
    )
