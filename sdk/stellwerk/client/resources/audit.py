"""The audit ledger: who did what and who was refused, in a chain that shows when it was tampered
with.
"""

from __future__ import annotations

import builtins

from stellwerk.client.resources.resource import Noun, S, pages
from stellwerk.client.session.plan import Plan, call, operation
from stellwerk.controlplane.v1 import audit_service_pb2 as pb


class Audit(Noun[S]):
    """Records of changes and refusals."""

    @operation
    def list(
        self, *, principal: str = "", resource: str = "", limit: int | None = 50
    ) -> Plan[builtins.list[pb.AuditRecord]]:
        """The newest records, of one principal or about one resource where given."""
        request = pb.ListRecordsRequest(principal=principal, resource=resource)
        return (yield from pages(request, pb.ListRecordsResponse, lambda page: page.records, limit))

    @operation
    def verify(
        self, *, expected_sequence: int = 0, expected_hash: str = ""
    ) -> Plan[pb.VerifyResponse]:
        """Recomputes the chain. With a number and hash kept from earlier, it shows whether records
        were cut off.
        """
        request = pb.VerifyRequest(expected_sequence=expected_sequence, expected_hash=expected_hash)
        return (yield from call(request, pb.VerifyResponse))
