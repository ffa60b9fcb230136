"""An audit ledger that keeps records in a list, or refuses to."""

from __future__ import annotations

from collections.abc import Sequence

from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire.errors import Unavailable


class FakeLedger:
    def __init__(self) -> None:
        self.records: list[audit.AuditRecord] = []
        self.away = False

    async def append(self, records: Sequence[audit.AuditRecord]) -> None:
        if self.away:
            raise Unavailable("the ledger is away")
        self.records += records
