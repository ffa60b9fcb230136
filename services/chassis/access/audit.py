"""What the guard writes to the audit ledger: an intent before each change, its outcome after, and
each refusal.

A change whose intent cannot be written is not made. Refusals are written in the background, like
ones counted together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import audit_service_pb2_grpc as stubs
from stellwerk.wire.errors import DeadlinePassed, ServiceError, Unavailable

_FLUSH_SECONDS = 0.5
# Different records kept while the ledger is away; beyond it only their number is kept.
_MAX_WAITING = 1000


class AuditSink(Protocol):
    """Where records go. All are kept when `append` returns; raises a ServiceError otherwise."""

    async def append(self, records: Sequence[audit.AuditRecord]) -> None: ...


class RemoteLedger:
    """The control plane's ledger, over gRPC."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = stubs.AuditServiceStub(channel)

    async def append(self, records: Sequence[audit.AuditRecord]) -> None:
        try:
            await self._stub.AppendRecords(audit.AppendRecordsRequest(records=records), timeout=5.0)
        except (Unavailable, DeadlinePassed) as exc:
            raise Unavailable(
                "the audit ledger cannot be written, so nothing is changed; try again"
            ) from exc


class Journal:
    """Refusals and outcomes on their way to the ledger."""

    def __init__(self, sink: AuditSink, log: structlog.typing.FilteringBoundLogger) -> None:
        self._sink, self._log = sink, log
        self._waiting: dict[tuple[str, ...], audit.AuditRecord] = {}
        self._dropped = 0
        self._wake = asyncio.Event()

    def note(self, record: audit.AuditRecord) -> None:
        """Takes a record; returns at once. Like refusals become one record with a count."""
        alone = record.request_id if record.kind == audit.AuditRecord.KIND_OUTCOME else ""
        key = (record.principal, record.method, record.resource, record.outcome, record.peer, alone)
        known = self._waiting.get(key)
        if known is not None:
            known.count += 1
        elif len(self._waiting) < _MAX_WAITING:
            record.count = 1
            self._waiting[key] = record
        else:
            self._dropped += 1
        self._wake.set()

    async def flush(self) -> None:
        """Writes what waits. What cannot be written goes on waiting."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            await self._sink.append(list(waiting.values()))
        except ServiceError:
            for key, record in waiting.items():
                newer = self._waiting.get(key)
                record.count += newer.count if newer else 0
                self._waiting[key] = record
            raise
        if self._dropped:
            self._log.warning("audit_records_dropped", count=self._dropped)
            self._dropped = 0

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except ServiceError as exc:
                self._log.warning("audit_unreachable", reason=exc.reason)
                await asyncio.sleep(2.0)
                self._wake.set()
