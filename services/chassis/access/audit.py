"""Records in the audit ledger: an intent before each change, its outcome after it, each refusal.

A change whose intent cannot be written is not made. Outcomes and refusals are written in the
background; equal refusals become one record with a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from services.chassis import background
from services.chassis.context import CallContext
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import audit_service_pb2_grpc as stubs
from stellwerk.wire.errors import DeadlinePassed, ServiceError, Unavailable

# Seconds in which records gather before they are written together.
_FLUSH_SECONDS = 0.5
# Seconds that the control plane gets to store records.
_APPEND_SECONDS = 5.0
# Different records kept while the ledger is away; beyond it only their number is kept.
_MAX_WAITING = 1000
# Characters of a resource name that a record keeps.
_MAX_RESOURCE = 512


class AuditSink(Protocol):
    """Stores audit records."""

    async def append(self, records: Sequence[audit.AuditRecord]) -> None:
        """Returns once all records are stored. Raises a ServiceError otherwise."""
        ...


class RemoteAuditSink:
    """Stores audit records in the control plane's ledger, over gRPC."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = stubs.AuditServiceStub(channel)

    async def append(self, records: Sequence[audit.AuditRecord]) -> None:
        """Stores records; see `AuditSink`."""
        request = audit.AppendRecordsRequest(records=records)
        try:
            await self._stub.AppendRecords(request, timeout=_APPEND_SECONDS)
        except (Unavailable, DeadlinePassed) as exc:
            raise Unavailable(
                "the audit ledger cannot be written, so nothing is changed; try again"
            ) from exc


class AuditTrail:
    """Writes what the calls of one process leave in the audit ledger."""

    def __init__(self, sink: AuditSink, log: structlog.typing.FilteringBoundLogger) -> None:
        self._sink = sink
        self._log = log
        self._waiting: dict[tuple[str, ...], audit.AuditRecord] = {}
        self._dropped = 0
        self._wake = asyncio.Event()

    async def intend(self, call: CallContext) -> None:
        """Returns once the intent of a change is stored. Raises a ServiceError otherwise."""
        await self._sink.append([_record(audit.AuditRecord.KIND_INTENT, call, "")])

    def conclude(self, call: CallContext, outcome: str) -> None:
        """Notes how a change ended: "OK", or the reason of its error."""
        self.note(_record(audit.AuditRecord.KIND_OUTCOME, call, outcome))

    def refuse(self, call: CallContext, reason: str) -> None:
        """Notes that a call was refused."""
        self.note(_record(audit.AuditRecord.KIND_REFUSAL, call, reason))

    def note(self, record: audit.AuditRecord) -> None:
        """Takes a record to write it in the background; equal ones become one with a count."""
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
        """Writes the waiting records. Raises a ServiceError and keeps them if that fails."""
        waiting = self._waiting
        self._waiting = {}
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
        """Writes waiting records for ever."""
        await background.run_forever(self._write_next, self._failed, expected=ServiceError)

    async def _write_next(self, _: Callable[[], None]) -> None:
        await self._wake.wait()
        await asyncio.sleep(_FLUSH_SECONDS)
        self._wake.clear()
        try:
            await self.flush()
        except ServiceError:
            self._wake.set()
            raise

    def _failed(self, error: Exception, repeats: bool) -> None:
        if isinstance(error, ServiceError) and not repeats:
            self._log.warning("audit_unreachable", reason=error.reason, cause=error.message)


def _record(kind: int, call: CallContext, outcome: str) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=kind,  # type: ignore[arg-type]
        principal=call.principal.name if call.principal else "",
        method=call.method,
        resource=call.resource[:_MAX_RESOURCE],
        request_id=call.request_id,
        outcome=outcome,
        peer=call.peer,
        count=1,
    )
