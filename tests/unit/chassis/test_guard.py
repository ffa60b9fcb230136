"""The guard: nobody gets past it unnamed, every change is in the ledger, errors cross intact and
reveal nothing.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.chassis.access.token_verifier import REFUSAL
from services.chassis.rpc.channel import ServiceChannel
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from stellwerk.wire.errors import (
    Conflict,
    ModelNotFound,
    NotPermitted,
    Overloaded,
    ServiceError,
    Unavailable,
    rebuild,
)
from tests.fakes.guarded_repository import CANARY, DELETE, READ, Repository, refused
from tests.fakes.process import Standalone


async def test_without_a_token_nothing_is_answered(served: Standalone) -> None:
    async with served.channel() as channel:
        error = await refused(stubs.RepositoryServiceStub(channel).GetModel(READ))

    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, REFUSAL)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"nbf": time.time() + 7200},
        {"iat": time.time() + 7200, "exp": time.time() + 7800},
        {"aud": "stellwerk-other"},
        {"iss": "somebody"},
        {"exp": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
        {"exp": "x"},
        {"exp": float("1e300")},
        {"grants": "admin"},
        {"grants": [["viewer"]]},
    ],
)
async def test_a_token_with_any_wrong_claim_has_the_same_answer(
    served: Standalone, changes: dict[str, Any]
) -> None:
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        error = await refused(
            stub.GetModel(READ, metadata=served.bearer(("viewer", "*"), **changes))
        )

    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, REFUSAL)


async def test_headers_that_name_keys_or_algorithms_are_refused(served: Standalone) -> None:
    claims = served.issuer.claims("principals/ada", ("viewer", "*"))
    good = served.issuer.sign(claims)
    head, body, signature = good.split(".")
    tokens = [
        served.issuer.sign(claims, {"jku": "http://127.0.0.1/keys"}),
        served.issuer.sign(claims, {"kid": "../../dev/null"}),
        f"{head}.{body}.",
        f"{head}.{body}x.{signature}",
        "eyJhbGciOiJub25lIn0." + body + ".",
        good + "x" * 9000,
        "",
        "a.b.c",
    ]
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        for token in tokens:
            error = await refused(
                stub.GetModel(READ, metadata=(("authorization", f"Bearer {token}"),))
            )
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, token[:40]
        await stub.GetModel(READ, metadata=(("authorization", f"Bearer {good}"),))


async def test_a_revoked_key_is_refused_though_its_token_was_seen_before(
    served: Standalone,
) -> None:
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        metadata = served.bearer(("viewer", "*"))
        await stub.GetModel(READ, metadata=metadata)

        served.process.verifier.trust(served.issuer.bundle(revoked_key_ids=["key1"]))

        assert (
            await refused(stub.GetModel(READ, metadata=metadata))
        ).code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("grant", "allowed"),
    [
        (("viewer", "*"), True),
        (("viewer", "team"), True),
        (("viewer", "tea"), False),
        (("nobody", "*"), False),
    ],
)
async def test_a_role_counts_on_its_bucket_only(
    served: Standalone, grant: tuple[str, str], allowed: bool
) -> None:
    async with served.channel() as channel:
        call = stubs.RepositoryServiceStub(channel).GetModel(READ, metadata=served.bearer(grant))
        if allowed:
            await call
        else:
            assert (await refused(call)).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_change_is_recorded_before_and_after(
    served: Standalone, servicer: Repository
) -> None:
    async with served.channel() as channel:
        await stubs.RepositoryServiceStub(channel).DeleteModel(
            DELETE, metadata=served.bearer(("editor", "team"))
        )
    await flushed(served)

    intent, outcome = served.ledger.records
    assert (intent.kind, outcome.kind) == (
        audit.AuditRecord.KIND_INTENT,
        audit.AuditRecord.KIND_OUTCOME,
    )
    assert intent.principal == "principals/ada"
    assert intent.resource == DELETE.name
    assert (outcome.outcome, outcome.request_id) == ("OK", intent.request_id)


async def flushed(served: Standalone) -> None:
    await served.process.audit_trail.flush()


async def test_nothing_is_changed_when_the_ledger_cannot_be_written(
    served: Standalone, servicer: Repository
) -> None:
    served.ledger.away = True
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        error = await refused(stub.DeleteModel(DELETE, metadata=served.bearer(("editor", "team"))))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await stub.GetModel(READ, metadata=served.bearer(("viewer", "team")))
    assert servicer.deleted == 0
    served.ledger.away = False


async def test_refusals_are_recorded_and_like_ones_counted(served: Standalone) -> None:
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        for _ in range(5):
            await refused(stub.DeleteModel(DELETE, metadata=served.bearer(("viewer", "team"))))
    await flushed(served)

    assert sum(record.count for record in served.ledger.records) == 5
    assert {record.outcome for record in served.ledger.records} == {"NOT_PERMITTED"}
    assert len(served.ledger.records) < 5


async def test_a_refusal_is_recorded_where_it_was_made(
    served: Standalone, servicer: Repository
) -> None:
    told = (NotPermitted.code, NotPermitted.reason, "not here")
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        for servicer.error in (NotPermitted("our own"), rebuild(*told)):
            error = await refused(stub.GetModel(READ, metadata=served.bearer(("viewer", "*"))))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await flushed(served)

    assert [record.count for record in served.ledger.records] == [1]


async def test_an_unforeseen_error_reveals_nothing(
    served: Standalone, servicer: Repository
) -> None:
    servicer.error = RuntimeError(f"mongodb://admin:{CANARY}@db")
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        error = await refused(stub.GetModel(READ, metadata=served.bearer(("viewer", "*"))))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert CANARY not in str(error.details()) + str(error.trailing_metadata())


async def test_an_error_carries_reason_metadata_and_retry_hint(
    served: Standalone, servicer: Repository
) -> None:
    servicer.error = Overloaded("too much", retry_after_ms=1500, limit=7)
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        error = await refused(stub.GetModel(READ, metadata=served.bearer(("viewer", "*"))))

    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, info.metadata["limit"]) == ("OVERLOADED", "stellwerk", "7")
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize(
    "raised", [ModelNotFound("no model iris", model="iris"), Conflict("stale"), Overloaded("full")]
)
async def test_our_own_clients_get_the_class_that_was_raised(
    served: Standalone, servicer: Repository, raised: ServiceError
) -> None:
    servicer.error = raised

    async def token() -> str:
        return served.issuer.token("services/router", ("viewer", "*"))

    async with served.channel() as bare:
        stub: Any = stubs.RepositoryServiceStub(ServiceChannel(bare, "repository", token))
        with pytest.raises(type(raised)) as unary:
            await stub.GetModel(READ)
        with pytest.raises(type(raised)) as streamed:
            async for _ in stub.DownloadArtifact(messages.DownloadArtifactRequest(name=READ.name)):
                pass

    assert unary.value.message == streamed.value.message == raised.message
    assert unary.value.metadata == raised.metadata


async def test_a_service_that_is_away_is_named_without_grpcs_words() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as bare:
        stub: Any = stubs.RepositoryServiceStub(ServiceChannel(bare, "repository", None))
        with pytest.raises(Unavailable) as caught:
            await stub.GetModel(READ, timeout=2)

    assert caught.value.message == "the repository does not answer; try again in a moment"
