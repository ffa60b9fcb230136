"""Principals, their API keys, and the tokens that keys are exchanged for."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from stellwerk.client.errors import InvalidInput
from stellwerk.client.naming import principal_name
from stellwerk.client.resources.resource import Resource, S, pages
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Plan, call
from stellwerk.controlplane.v1 import identity_service_pb2 as pb


def role_bindings(roles: Sequence[str]) -> list[pb.RoleBinding]:
    """Returns the bindings of roles: "editor" is bound to all buckets, "editor@team" to one."""
    split = [role.partition("@") for role in roles]
    return [pb.RoleBinding(role=role, bucket=bucket if at else "*") for role, at, bucket in split]


class Access(Resource[S]):
    """Identities and credentials. Changes need the permission `access.write`."""

    @operation
    def caller(self) -> Plan[pb.GetCallerResponse]:
        """Returns the principal of this client, its roles and permissions."""
        return (yield from call(pb.GetCallerRequest(), pb.GetCallerResponse))

    @operation
    def roles(self) -> Plan[builtins.list[pb.Role]]:
        """Returns all roles with their permissions."""
        return list((yield from call(pb.ListRolesRequest(), pb.ListRolesResponse)).roles)

    @operation
    def issue_token(
        self, api_key: str, *, lifetime_seconds: int = 0
    ) -> Plan[pb.IssueTokenResponse]:
        """Returns a short-lived access token for an API key.

        `lifetime_seconds` is 0 for the platform's default. Raises Unauthenticated if the key is not
        known, revoked or lapsed.
        """
        request = pb.IssueTokenRequest(api_key=api_key, lifetime_seconds=lifetime_seconds)
        return (yield from call(request, pb.IssueTokenResponse))

    @operation
    def create_principal(
        self, principal: str, roles: Sequence[str] = (), *, display_name: str = ""
    ) -> Plan[pb.Principal]:
        """Registers a person or an application and returns it.

        `roles` are such as "caller" (on all buckets) or "editor@team" (on one). Raises
        AlreadyExists if there is a principal of that name.
        """
        described = pb.Principal(
            name=principal_name(principal), display_name=display_name, roles=role_bindings(roles)
        )
        return (
            yield from call(
                pb.CreatePrincipalRequest(principal=described), pb.CreatePrincipalResponse
            )
        ).principal

    @operation
    def principals(self) -> Plan[builtins.list[pb.Principal]]:
        """Returns the principals in the order of their names."""
        request = pb.ListPrincipalsRequest()
        return (yield from pages(request, pb.ListPrincipalsResponse, lambda page: page.principals))

    @operation
    def update_principal(
        self, principal: str, *, roles: Sequence[str] | None = None, disabled: bool | None = None
    ) -> Plan[pb.Principal]:
        """Replaces a principal's roles, or closes (`disabled=True`) and opens its access; returns
        the changed principal. Raises Conflict if another changed it at the same time.
        """
        name = principal_name(principal)
        read = yield from call(pb.GetPrincipalRequest(name=name), pb.GetPrincipalResponse)
        changed = pb.Principal(name=name, etag=read.principal.etag)
        mask = FieldMask()
        if roles is not None:
            changed.roles.extend(role_bindings(roles))
            mask.paths.append("roles")
        if disabled is not None:
            changed.disabled = disabled
            mask.paths.append("disabled")
        if not mask.paths:
            raise InvalidInput("say what to change: roles or disabled", field="update_mask")
        request = pb.UpdatePrincipalRequest(principal=changed, update_mask=mask)
        return (yield from call(request, pb.UpdatePrincipalResponse)).principal

    @operation
    def drop_principal(self, principal: str) -> Plan[None]:
        """Deletes a principal and its keys; its tokens are refused from then on."""
        yield from call(
            pb.DeletePrincipalRequest(name=principal_name(principal)), pb.DeletePrincipalResponse
        )

    @operation
    def create_key(
        self, principal: str, *, display_name: str = "", expires: Timestamp | None = None
    ) -> Plan[pb.CreateApiKeyResponse]:
        """Makes an API key for a principal; its secret is in the answer and is never shown again.

        `expires` is a protobuf Timestamp, None for a key that does not lapse.
        """
        request = pb.CreateApiKeyRequest(
            parent=principal_name(principal),
            api_key=pb.ApiKey(display_name=display_name, expire_time=expires),
        )
        return (yield from call(request, pb.CreateApiKeyResponse))

    @operation
    def keys(self, principal: str) -> Plan[builtins.list[pb.ApiKey]]:
        """Returns a principal's keys, newest first, without their secrets."""
        request = pb.ListApiKeysRequest(parent=principal_name(principal))
        return list((yield from call(request, pb.ListApiKeysResponse)).api_keys)

    @operation
    def revoke_key(self, name: str) -> Plan[pb.ApiKey]:
        """Revokes the key `principals/{principal}/keys/{key}` and every token issued for it;
        returns the revoked key.
        """
        return (yield from call(pb.RevokeApiKeyRequest(name=name), pb.RevokeApiKeyResponse)).api_key
