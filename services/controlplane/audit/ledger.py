"""Appends records to the audit ledger in one order, and answers only when they are durable.

Group commit: records that arrive during a write go into the next write together; a lone record
waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

from services.chassis.futures import settle
from services.controlplane.audit.chain import ChainVerifier, Entry, Head, Verification, extend
from stellwerk.controlplane.v1 import audit_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput, Overloaded, Unavailable

# Records in one call. Above the number that a service gathers while the ledger is away, so that
# none of those is refused.
MAX_RECORDS_PER_CALL = 10_000
# Records that may wait for the database; beyond them callers get Overloaded.
_MAX_WAITING = 20_000
# Records written in one insert, unless one call holds more.
_MAX_BATCH = 1000
# Characters of a field. Longer values are cut, never refused: an attack must be recorded too.
_MAX_TEXT = 256
_MAX_RESOURCE = 1024
_OWN_SERVICE = "controlplane"
# Attempts to write a batch after another writer took its numbers; in each one of the writers
# succeeds.
_MAX_ROUNDS = 50


class SequenceTaken(Exception):
    """Raised when another writer took a number first; the first `written` entries of the batch were
    stored.
    """

    def __init__(self, written: int) -> None:
        super().__init__(written)
        self.written = written


class EntryStore(Protocol):
    """A store of entries by number. Every method raises Unavailable when the store does not
    answer.
    """

    async def insert(self, entries: Sequence[Entry]) -> None:
        """Stores the entries in order, durably. Raises SequenceTaken for a number in use."""
        ...

    async def tail(self) -> Head:
        """Returns the last entry's number and hash."""
        ...

    async def head(self) -> Head:
        """Returns the head that was noted beside the entries."""
        ...

    async def note_head(self, head: Head) -> None:
        """Notes the head beside the entries; never moves it back."""
        ...

    def scan(self) -> AsyncIterator[list[Entry]]:
        """Yields all entries in order of their numbers, in lots."""
        ...

    async def page(self, before: int, limit: int, principal: str, resource: str) -> list[Entry]:
        """Returns up to `limit` entries, newest first, with a number < `before` (0: any), of this
        principal and resource ("": any).
        """
        ...


@dataclass(slots=True)
class _PendingAppend:
    """The records of one call, and the future of its last record's number."""

    records: Sequence[pb.AuditRecord]
    done: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class AuditLedger:
    """Appends records to the ledger, lists them and verifies the chain."""

    def __init__(self, store: EntryStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._head: Head | None = None
        # The last entry that this process has written.
        self._furthest = Head()
        self._waiting: list[_PendingAppend] = []
        self._queued = 0
        self._writer: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[pb.AuditRecord]) -> None:
        """Appends the records in order; they are durable when this returns. A record without a
        `service` is the control plane's own.

        Raises InvalidInput for a record without a kind, Overloaded, and Unavailable, after which
        the records may have been stored all the same.
        """
        await self.append_counted(records)

    async def append_counted(self, records: Sequence[pb.AuditRecord]) -> int:
        """Appends the records like `append`; returns the last one's number, 0 for no records."""
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
            raise Overloaded("too many records wait for the audit ledger; try again in a moment")
        waiting = _PendingAppend(records)
        self._waiting.append(waiting)
        self._queued += len(records)
        if self._writer is None or self._writer.done():
            # In an empty context: the task writes for many callers, not only for the one that
            # starts it.
            self._writer = asyncio.create_task(self._write_waiting(), context=Context())
        return await waiting.done

    async def close(self) -> None:
        """Waits until the records in hand are written."""
        if self._writer is not None:
            await self._writer

    async def page(
        self, before: int, limit: int, principal: str = "", resource: str = ""
    ) -> list[Entry]:
        """Returns entries newest first; see EntryStore.page."""
        return await self._store.page(before, limit, principal, resource)

    async def verify(self, expected: Head | None = None) -> Verification:
        """Recomputes the whole chain, which must contain the noted head, the last entry of this
        process, and `expected`.
        """
        anchors = [await self._store.head(), self._furthest, *([expected] if expected else [])]
        verifier = ChainVerifier(anchors)
        async for entries in self._store.scan():
            if not verifier.feed(entries):
                break
        return verifier.finish()

    async def _write_waiting(self) -> None:
        while self._waiting:
            # A caller that was cancelled meanwhile may believe that nothing was written.
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
                # The store may hold some of the entries: its end is read before the next write.
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
        """Notes the head, after the callers have their answer: a head that lags behind for a moment
        does no harm. A failure is made good by the next head.
        """
        try:
            await self._store.note_head(self._furthest)
        except Exception:
            self._head = None

    async def _resume(self) -> Head:
        """Returns the head that the next entry follows. After the chain's end was cut off or
        changed this is the former head, so that the damage stays visible.
        """
        candidates = [self._furthest, await self._store.head(), await self._store.tail()]
        return max(candidates, key=lambda head: head.sequence)

    def _take(self) -> list[_PendingAppend]:
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
        """Writes all entries and returns their numbers. Raises Unavailable after _MAX_ROUNDS."""
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
        raise Unavailable("too many control planes write the audit ledger at once; try again")


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
        service=_cut(record.service or _OWN_SERVICE, _MAX_TEXT),
        outcome=_cut(record.outcome, _MAX_TEXT),
        count=max(int(record.count), 1),
        peer=_cut(record.peer, _MAX_TEXT),
    )
