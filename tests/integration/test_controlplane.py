"""The control plane as others meet it: over gRPC, behind its own guard, with a real MongoDB under
it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf import field_mask_pb2, timestamp_pb2

from services.chassis.rpc_status import from_rpc
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.identity.token_issuer import REFUSAL
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import controlplane_service_pb2 as platform
from stellwerk.controlplane.v1 import controlplane_service_pb2_grpc as platform_grpc
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.permissions import ROLES
from tests.integration.controlplane_caller import (
    ROUTER_KEY,
    Caller,
    code_of,
    running,
    settings_for,
    until,
)


@pytest.fixture(scope="module")
async def settings(mongod: str, tmp_path_factory: pytest.TempPathFactory) -> ControlPlaneSettings:
    return settings_for(mongod, tmp_path_factory.mktemp("controlplane"))


@pytest.fixture(scope="module")
async def anyone(settings: ControlPlaneSettings) -> AsyncIterator[Caller]:
    async with running(settings) as (process, channel):
        await until(lambda: not process.readiness.reasons())
        yield Caller(channel)


@pytest.fixture(scope="module")
async def admin(anyone: Caller, settings: ControlPlaneSettings) -> Caller:
    assert settings.admin_key_file is not None
    return await anyone.as_key(settings.admin_key_file.read_text().strip(), 3600)


@pytest.fixture(scope="module")
async def router(anyone: Caller) -> Caller:
    return await anyone.as_key(ROUTER_KEY)


async def test_the_first_administrator_is_who_the_file_says(admin: Caller) -> None:
    caller = await admin(admin.identity.GetCaller, pb.GetCallerRequest())

    assert caller.principal == "principals/admin"
    assert [(role.role, role.bucket) for role in caller.roles] == [("admin", "*")]
    assert caller.expire_time.seconds == pytest.approx(time.time() + 3600, abs=5)


@pytest.mark.parametrize(
    "key",
    ["", "x", f"swk_{'0' * 16}_{'a' * 43}", f"sws_router_{'a' * 43}", "é", "swk_" * 500],
)
async def test_a_bad_key_is_unauthenticated_with_one_text(anyone: Caller, key: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anyone.as_key(key)

    assert (code_of(failure), failure.value.details()) == ("UNAUTHENTICATED", REFUSAL)


async def test_the_jwks_verifies_a_token_without_any_code_of_ours(
    anyone: Caller, admin: Caller
) -> None:
    jwks = await anyone(anyone.identity.GetJwks, pb.GetJwksRequest())
    kid = jwt.get_unverified_header(admin.token)["kid"]
    (key,) = [key for key in jwks.keys if key.kid == kid]
    fields = {field.name: value for field, value in key.ListFields()}

    claims = jwt.decode(
        admin.token,
        jwt.PyJWK(fields).key,
        algorithms=["ES256"],
        audience="stellwerk",
        issuer="stellwerk",
    )

    assert claims["sub"] == "principals/admin" and claims["grants"] == [["admin", "*"]]


async def test_every_role_meets_every_method_as_its_permissions_say(
    anyone: Caller, admin: Caller
) -> None:
    for role in [role for role in ROLES.values() if not role.service]:
        caller = await anyone.as_key(await admin.make(f"role-{role.name}", role.name))
        for permission, call in [
            (
                "access.read",
                caller(caller.identity.ListPrincipals, pb.ListPrincipalsRequest(page_size=1)),
            ),
            (
                "access.write",
                caller(caller.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name="nonsense")),
            ),
            ("audit.read", caller(caller.audit.ListRecords, audit.ListRecordsRequest(page_size=1))),
            ("audit.write", caller(caller.audit.AppendRecords, audit.AppendRecordsRequest())),
        ]:
            try:
                await call
                code = "OK"
            except grpc.aio.AioRpcError as exc:
                code = exc.code().name
            allowed = permission in role.permissions
            assert (code != "PERMISSION_DENIED") == allowed, (role.name, permission, code)
        assert len((await caller(caller.identity.ListRoles, pb.ListRolesRequest())).roles) == 6


async def test_without_a_token_only_what_is_meant_for_anyone_answers(anyone: Caller) -> None:
    assert (await anyone(anyone.identity.GetTrust, pb.GetTrustRequest())).issuer == "stellwerk"
    for method, request in [
        (anyone.identity.GetCaller, pb.GetCallerRequest()),
        (anyone.identity.RotateSigningKey, pb.RotateSigningKeyRequest()),
        (anyone.audit.AppendRecords, audit.AppendRecordsRequest()),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await anyone(method, request)
        assert code_of(failure) == "UNAUTHENTICATED"


async def test_a_revoked_keys_token_is_refused_at_once_and_everyone_is_told(
    anyone: Caller, admin: Caller
) -> None:
    secret = await admin.make("revokee", "viewer")
    caller = await anyone.as_key(secret)
    await caller(caller.identity.GetCaller, pb.GetCallerRequest())
    (key,) = (
        await admin(admin.identity.ListApiKeys, pb.ListApiKeysRequest(parent="principals/revokee"))
    ).api_keys

    revoked = await admin(admin.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=key.name))

    assert revoked.api_key.HasField("revoke_time") and not key.HasField("revoke_time")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await caller(caller.identity.GetCaller, pb.GetCallerRequest())
    assert code_of(failure) == "UNAUTHENTICATED"
    with pytest.raises(grpc.aio.AioRpcError):
        await anyone.as_key(secret)
    trust = await anyone(anyone.identity.GetTrust, pb.GetTrustRequest())
    assert key.name.rpartition("/")[2] in trust.revoked_key_ids


async def test_a_disabled_principals_token_is_refused_until_it_is_enabled_and_asks_anew(
    anyone: Caller, admin: Caller
) -> None:
    secret = await admin.make("disablee", "viewer")
    caller = await anyone.as_key(secret)
    mask = field_mask_pb2.FieldMask(paths=["disabled"])

    async def set_disabled(disabled: bool) -> list[str]:
        principal = pb.Principal(name="principals/disablee", disabled=disabled)
        await admin(
            admin.identity.UpdatePrincipal,
            pb.UpdatePrincipalRequest(principal=principal, update_mask=mask),
        )
        return list(
            (await anyone(anyone.identity.GetTrust, pb.GetTrustRequest())).revoked_principals
        )

    assert "principals/disablee" in await set_disabled(True)
    with pytest.raises(grpc.aio.AioRpcError):
        await caller(caller.identity.GetCaller, pb.GetCallerRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await anyone.as_key(secret)

    assert "principals/disablee" not in await set_disabled(False)
    again = await anyone.as_key(secret)
    assert (
        await again(again.identity.GetCaller, pb.GetCallerRequest())
    ).principal == "principals/disablee"


async def test_roles_that_were_taken_away_are_gone_from_tokens_that_still_live(
    anyone: Caller, admin: Caller
) -> None:
    secret = await admin.make("demotee", "admin")
    caller = await anyone.as_key(secret, 24 * 3600)
    await caller(caller.identity.ListPrincipals, pb.ListPrincipalsRequest())
    principal = pb.Principal(
        name="principals/demotee", roles=[pb.RoleBinding(role="viewer", bucket="*")]
    )

    await admin(admin.identity.UpdatePrincipal, pb.UpdatePrincipalRequest(principal=principal))

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await caller(caller.identity.ListPrincipals, pb.ListPrincipalsRequest())
    assert code_of(failure) == "UNAUTHENTICATED"
    caller = await anyone.as_key(secret)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await caller(caller.identity.ListPrincipals, pb.ListPrincipalsRequest())
    assert code_of(failure) == "PERMISSION_DENIED"


async def test_a_deleted_principals_token_is_refused(anyone: Caller, admin: Caller) -> None:
    caller = await anyone.as_key(await admin.make("deletee", "viewer"))

    await admin(
        admin.identity.DeletePrincipal, pb.DeletePrincipalRequest(name="principals/deletee")
    )

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await caller(caller.identity.GetCaller, pb.GetCallerRequest())
    assert code_of(failure) == "UNAUTHENTICATED"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await admin(admin.identity.GetPrincipal, pb.GetPrincipalRequest(name="principals/deletee"))
    assert code_of(failure) == "NOT_FOUND"


async def test_rotation_keeps_old_tokens_and_signs_with_the_new_key(
    anyone: Caller, admin: Caller
) -> None:
    secret = await admin.make("rotator", "admin")
    old = await anyone.as_key(secret)

    kid = (await old(old.identity.RotateSigningKey, pb.RotateSigningKeyRequest())).kid

    new = await anyone.as_key(secret)
    assert (
        jwt.get_unverified_header(new.token)["kid"]
        == kid
        != jwt.get_unverified_header(old.token)["kid"]
    )
    for caller in (old, new):
        assert (
            await caller(caller.identity.GetCaller, pb.GetCallerRequest())
        ).principal == "principals/rotator"
    assert kid in [
        key.kid for key in (await anyone(anyone.identity.GetJwks, pb.GetJwksRequest())).keys
    ]


async def test_the_last_administrator_cannot_be_removed(admin: Caller, anyone: Caller) -> None:
    found = await admin(admin.identity.ListPrincipals, pb.ListPrincipalsRequest(page_size=1000))
    for principal in found.principals:
        if (
            pb.RoleBinding(role="admin", bucket="*") in principal.roles
            and principal.name != "principals/admin"
        ):
            await admin(
                admin.identity.DeletePrincipal, pb.DeletePrincipalRequest(name=principal.name)
            )

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await admin(
            admin.identity.DeletePrincipal, pb.DeletePrincipalRequest(name="principals/admin")
        )

    error = from_rpc(failure.value, "control plane")
    assert (code_of(failure), error.reason) == ("FAILED_PRECONDITION", "NOT_READY")
    assert "last administrator" in error.message


@pytest.mark.parametrize(
    "method, request_message",
    [
        ("GetPrincipal", pb.GetPrincipalRequest(name="principals/../admin")),
        ("GetPrincipal", pb.GetPrincipalRequest(name="buckets/x")),
        (
            "CreatePrincipal",
            pb.CreatePrincipalRequest(principal=pb.Principal(name="principals/" + "a" * 64)),
        ),
        (
            "CreatePrincipal",
            pb.CreatePrincipalRequest(principal=pb.Principal(name="principals/$where")),
        ),
        (
            "CreatePrincipal",
            pb.CreatePrincipalRequest(
                principal=pb.Principal(
                    name="principals/x", roles=[pb.RoleBinding(role="service.router", bucket="*")]
                )
            ),
        ),
        ("ListPrincipals", pb.ListPrincipalsRequest(page_size=-1)),
        ("ListPrincipals", pb.ListPrincipalsRequest(page_token="WyIiLCAieCJd")),
        (
            "CreateApiKey",
            pb.CreateApiKeyRequest(
                parent="principals/admin",
                api_key=pb.ApiKey(expire_time=timestamp_pb2.Timestamp(seconds=1)),
            ),
        ),
        ("RevokeApiKey", pb.RevokeApiKeyRequest(name="principals/admin")),
        ("IssueToken", pb.IssueTokenRequest(api_key="x", lifetime_seconds=-5)),
    ],
)
async def test_bad_input_is_said_to_be_so(admin: Caller, method: str, request_message: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await admin(getattr(admin.identity, method), request_message)

    assert code_of(failure) == "INVALID_ARGUMENT"


# --- status


async def test_the_status_names_who_does_not_answer(admin: Caller) -> None:
    stub: Any = platform_grpc.ControlPlaneServiceStub(admin.channel)

    answer = await admin(stub.GetStatus, platform.GetStatusRequest())

    assert {service.service: service.ready for service in answer.services} == {
        "controlplane": True,
        "router": False,
        "repository": False,
    }
    assert not answer.ready and any("router" in reason for reason in answer.reasons)
