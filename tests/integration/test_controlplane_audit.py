"""The audit ledger as services and administrators meet it: over gRPC, with a real MongoDB."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import grpc
import pytest

from services.controlplane.config import ControlPlaneSettings
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire import paging
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
    return settings_for(mongod, tmp_path_factory.mktemp("audit"))


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


async def test_a_services_records_carry_its_name_whatever_they_say(
    admin: Caller, router: Caller
) -> None:
    resource = f"buckets/{uuid.uuid4().hex}"
    record = audit.AuditRecord(
        kind=audit.AuditRecord.KIND_REFUSAL,
        principal="principals/eve",
        resource=resource,
        service="repository",
        count=7,
    )

    answer = await router(router.audit.AppendRecords, audit.AppendRecordsRequest(records=[record]))

    (found,) = (
        await admin(admin.audit.ListRecords, audit.ListRecordsRequest(resource=resource))
    ).records
    assert (found.service, found.principal, found.count) == ("router", "principals/eve", 7)
    assert found.sequence == answer.last_sequence and found.hash and found.previous_hash
    assert found.time.seconds == pytest.approx(time.time(), abs=10)


async def test_two_hundred_concurrent_appends_are_listed_page_by_page_and_verified(
    admin: Caller, router: Caller
) -> None:
    principal = f"principals/{uuid.uuid4().hex[:12]}"
    record = audit.AuditRecord(kind=audit.AuditRecord.KIND_INTENT, principal=principal)

    answers = await asyncio.gather(
        *(
            router(router.audit.AppendRecords, audit.AppendRecordsRequest(records=[record]))
            for _ in range(200)
        )
    )

    seen, token = [], ""
    while True:
        page = await admin(
            admin.audit.ListRecords,
            audit.ListRecordsRequest(principal=principal, page_size=64, page_token=token),
        )
        seen += [found.sequence for found in page.records]
        token = page.next_page_token
        if not token:
            break
    assert (
        seen == sorted((answer.last_sequence for answer in answers), reverse=True)
        and len(set(seen)) == 200
    )
    finding = await admin(admin.audit.Verify, audit.VerifyRequest())
    assert finding.intact and finding.checked >= 200
    kept = audit.VerifyRequest(
        expected_sequence=finding.last_sequence, expected_hash=finding.last_hash
    )
    assert (await admin(admin.audit.Verify, kept)).intact
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await admin(admin.audit.Verify, audit.VerifyRequest(expected_sequence=3))
    assert code_of(failure) == "INVALID_ARGUMENT"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await admin(
            admin.audit.ListRecords,
            audit.ListRecordsRequest(page_token=paging.encode("principals", "ada")),
        )
    assert code_of(failure) == "INVALID_ARGUMENT"


async def test_each_change_and_each_refusal_of_the_control_plane_itself_is_in_the_ledger(
    anyone: Caller, admin: Caller
) -> None:
    viewer = await anyone.as_key(await admin.make("nosy", "viewer"))
    with pytest.raises(grpc.aio.AioRpcError):
        await viewer(
            viewer.identity.DeletePrincipal, pb.DeletePrincipalRequest(name="principals/nosy")
        )

    async def found() -> list[tuple[int, str, str, str]]:
        answer = await admin(
            admin.audit.ListRecords, audit.ListRecordsRequest(resource="principals/nosy")
        )
        return [
            (record.kind, record.method.rpartition("/")[2], record.principal, record.outcome)
            for record in answer.records
        ]

    async def complete() -> bool:
        return set(await found()) >= {
            (1, "CreatePrincipal", "principals/admin", ""),
            (2, "CreatePrincipal", "principals/admin", "OK"),
            (1, "CreateApiKey", "principals/admin", ""),
            (2, "CreateApiKey", "principals/admin", "OK"),
            (3, "DeletePrincipal", "principals/nosy", "NOT_PERMITTED"),
        }

    await until(complete)
