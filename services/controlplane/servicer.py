"""Serves ControlPlaneService, IdentityService and AuditService: turns each request message into one
call of a room, and its result into the response message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.chassis import context
from services.controlplane import messages
from services.controlplane.audit.chain import Head
from services.controlplane.audit.ledger import AuditLedger
from services.controlplane.identity.register import PrincipalRegister
from services.controlplane.identity.token_issuer import TokenIssuer
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import controlplane_service_pb2 as controlplane
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire import paging
from stellwerk.wire.errors import InvalidInput, NotPermitted
from stellwerk.wire.permissions import ROLES


class ControlPlaneServicer:
    """The RPCs of ControlPlaneService."""

    def __init__(self, get_status: Callable[[], Awaitable[controlplane.GetStatusResponse]]) -> None:
        self._get_status = get_status

    async def GetStatus(
        self, request: controlplane.GetStatusRequest, _: Any
    ) -> controlplane.GetStatusResponse:
        return await self._get_status()


class IdentityServicer:
    """The RPCs of IdentityService: tokens, principals, keys and roles."""

    def __init__(self, tokens: TokenIssuer, register: PrincipalRegister) -> None:
        self._tokens = tokens
        self._register = register

    async def IssueToken(self, request: pb.IssueTokenRequest, _: Any) -> pb.IssueTokenResponse:
        token = await self._tokens.exchange(request.api_key, request.lifetime_seconds)
        return pb.IssueTokenResponse(
            access_token=token.text, token_type="Bearer", expires_in=token.expires_in
        )

    async def GetJwks(self, request: pb.GetJwksRequest, _: Any) -> pb.GetJwksResponse:
        return pb.GetJwksResponse(keys=self._tokens.trust().keys)

    async def GetTrust(self, request: pb.GetTrustRequest, _: Any) -> pb.GetTrustResponse:
        return self._tokens.trust()

    async def GetCaller(self, request: pb.GetCallerRequest, _: Any) -> pb.GetCallerResponse:
        caller = context.caller()
        return pb.GetCallerResponse(
            principal=caller.name,
            roles=messages.bindings(caller.grants),
            expire_time=messages.timestamp(caller.expires_at),
        )

    async def CreatePrincipal(
        self, request: pb.CreatePrincipalRequest, _: Any
    ) -> pb.CreatePrincipalResponse:
        return pb.CreatePrincipalResponse(
            principal=messages.principal(await self._register.create(request.principal))
        )

    async def GetPrincipal(
        self, request: pb.GetPrincipalRequest, _: Any
    ) -> pb.GetPrincipalResponse:
        return pb.GetPrincipalResponse(
            principal=messages.principal(await self._register.get(request.name))
        )

    async def ListPrincipals(
        self, request: pb.ListPrincipalsRequest, _: Any
    ) -> pb.ListPrincipalsResponse:
        found, next_page = await self._register.page(request.page_size, request.page_token)
        return pb.ListPrincipalsResponse(
            principals=map(messages.principal, found), next_page_token=next_page
        )

    async def UpdatePrincipal(
        self, request: pb.UpdatePrincipalRequest, _: Any
    ) -> pb.UpdatePrincipalResponse:
        updated = await self._register.update(request.principal, list(request.update_mask.paths))
        return pb.UpdatePrincipalResponse(principal=messages.principal(updated))

    async def DeletePrincipal(
        self, request: pb.DeletePrincipalRequest, _: Any
    ) -> pb.DeletePrincipalResponse:
        await self._register.delete(request.name)
        return pb.DeletePrincipalResponse()

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, _: Any
    ) -> pb.CreateApiKeyResponse:
        made = await self._register.create_key(request.parent, request.api_key)
        return pb.CreateApiKeyResponse(api_key=messages.api_key(made.key), secret=made.secret)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, _: Any) -> pb.ListApiKeysResponse:
        return pb.ListApiKeysResponse(
            api_keys=map(messages.api_key, await self._register.keys_of(request.parent))
        )

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, _: Any
    ) -> pb.RevokeApiKeyResponse:
        return pb.RevokeApiKeyResponse(
            api_key=messages.api_key(await self._register.revoke_key(request.name))
        )

    async def ListRoles(self, request: pb.ListRolesRequest, _: Any) -> pb.ListRolesResponse:
        return pb.ListRolesResponse(
            roles=[messages.role(role) for role in ROLES.values() if not role.service]
        )

    async def RotateSigningKey(
        self, request: pb.RotateSigningKeyRequest, _: Any
    ) -> pb.RotateSigningKeyResponse:
        return pb.RotateSigningKeyResponse(kid=await self._tokens.rotate())


class AuditServicer:
    """The RPCs of AuditService."""

    def __init__(self, ledger: AuditLedger) -> None:
        self._ledger = ledger

    async def AppendRecords(
        self, request: audit.AppendRecordsRequest, _: Any
    ) -> audit.AppendRecordsResponse:
        caller = context.caller()
        if not caller.is_service:
            raise NotPermitted("only the platform's services write to the audit ledger")
        for record in request.records:
            # The caller's token says which service writes, whatever the record says.
            record.service = caller.name.removeprefix("services/")
        return audit.AppendRecordsResponse(
            last_sequence=await self._ledger.append_counted(request.records)
        )

    async def ListRecords(
        self, request: audit.ListRecordsRequest, _: Any
    ) -> audit.ListRecordsResponse:
        size = paging.page_size(request.page_size)
        listing = f"audit\0{request.principal}\0{request.resource}"
        before = messages.sequence(paging.decode(listing, request.page_token))
        found = await self._ledger.page(before, size + 1, request.principal, request.resource)
        next_page = (
            paging.encode(listing, str(found[size - 1].sequence)) if len(found) > size else ""
        )
        return audit.ListRecordsResponse(
            records=map(messages.record, found[:size]), next_page_token=next_page
        )

    async def Verify(self, request: audit.VerifyRequest, _: Any) -> audit.VerifyResponse:
        if request.expected_sequence < 0 or bool(request.expected_sequence) != bool(
            request.expected_hash
        ):
            raise InvalidInput(
                "expected_sequence and expected_hash belong together: give the number of a record"
                " and its hash",
                field="expected_sequence",
            )
        expected = (
            Head(request.expected_sequence, request.expected_hash)
            if request.expected_sequence
            else None
        )
        return messages.verification(await self._ledger.verify(expected))
