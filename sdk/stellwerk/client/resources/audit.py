"""The audit ledger: who did what and who was refused, in a chain that shows tampering."""

from __future__ import annotations

import builtins

from stellwerk.client.resources.resource import Resource, S, pages
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Plan, call
from stellwerk.controlplane.v1 import audit_service_pb2 as pb


class Audit(Resource[S]):
    """The records of changes and refusals, chained by hashes."""

    @operation
    def list(
        self, *, principal: str = "", resource: str = "", limit: int | None = 50
    ) -> Plan[builtins.list[pb.AuditRecord]]:
        """Returns the newest records, at most `limit`: all, or those of one `principal` or about
        one `resource`, given by their full names.
        """
        request = pb.ListRecordsRequest(principal=principal, resource=resource)
        return (yield from pages(request, pb.ListRecordsResponse, lambda page: page.records, limit))

    @operation
    def verify(
        self, *, expected_sequence: int = 0, expected_hash: str = ""
    ) -> Plan[pb.VerifyResponse]:
        """Recomputes the hash chain and returns whether it is intact.

        A record's number and hash, kept from an earlier check and given as `expected_sequence` and
        `expected_hash`, show also whether records were cut off since.
        """
        request = pb.VerifyRequest(expected_sequence=expected_sequence, expected_hash=expected_hash)
        return (yield from call(request, pb.VerifyResponse))
