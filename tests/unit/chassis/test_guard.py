"""The guard: nobody gets past it unnamed, every change is in the ledger, errors cross intact and
reveal nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.chassis import context
from services.chassis.access.token_verifier import REFUSAL
from services.chassis.config import ServiceSettings
from services.chassis.lifecycle.process import Process
from services.chassis.rpc.channel import ServiceChannel
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from stellwerk.wire.errors import (
    Conflict,
    DeadlinePassed,
    ModelNotFound,
    Overloaded,
    ServiceError,
    Unavailable,
)
from tests.fakes.process import Standalone, standalone

CANARY = "hunter2-password"
READ = messages.GetModelRequest(name="buckets/team/models/iris")
DELETE = messages.DeleteModelRequest(name="buckets/team/models/iris")


class Repository(stubs.RepositoryServiceServicer):  # type: ignore[misc]
    """Does what its `behaviour` says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self.seen: context.CallContext | None = None
        self.calls: dict[str, context.CallContext] = {}
        self.deleted = 0
        self.cancelled = asyncio.Event()

    async def GetModel(self, request: Any, _: Any) -> messages.GetModelResponse:
        self.seen = context.current()
        assert self.seen is not None
        self.calls[request.name] = self.seen
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return messages.GetModelResponse(model=messages.Model(name=request.name))

    async def DeleteModel(self, request: Any, _: Any) -> messages.DeleteModelResponse:
        if self.error:
            raise self.error
        self.deleted += 1
        return messages.DeleteModelResponse()

    async def UploadArtifact(
        self, requests: AsyncIterator[Any], _: Any
    ) -> messages.UploadArtifactResponse:
        size = 0
        async for part in requests:
            size += len(part.artifact.data)
        return messages.UploadArtifactResponse(model_version=messages.ModelVersion(size_bytes=size))

    async def DownloadArtifact(
        self, request: Any, _: Any
    ) -> AsyncGenerator[messages.DownloadArtifactResponse]:
        for _part in range(3):
            yield messages.DownloadArtifactResponse()
        if self.error:
            raise self.error


@pytest.fixture
async def servicer() -> Repository:
    return Repository()


@pytest.fixture
async def served(servicer: Repository) -> AsyncIterator[Standalone]:
    descriptor = messages.DESCRIPTOR.services_by_name["RepositoryService"]

    def build(process: Process) -> None:
        process.serve(descriptor, stubs.add_RepositoryServiceServicer_to_server, servicer)

    settings = ServiceSettings(log_level="error", drain_seconds=2, max_deadline_seconds=0.5)
    async with standalone("repository", build, settings) as running:
        yield running


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


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
    await served.process.journal.flush()


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


async def test_a_call_without_a_deadline_gets_the_servers_cap(
    served: Standalone, servicer: Repository
) -> None:
    servicer.seconds = 30
    async with served.channel() as channel:
        started = time.monotonic()
        error = await refused(
            stubs.RepositoryServiceStub(channel).GetModel(
                READ, metadata=served.bearer(("viewer", "*"))
            )
        )

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.4 < time.monotonic() - started < 2.0
    assert servicer.cancelled.is_set()


async def test_deadline_and_request_id_are_passed_on(
    served: Standalone, servicer: Repository
) -> None:
    async def token() -> str:
        return served.issuer.token("services/router", ("viewer", "*"))

    call = context.CallContext(method="/x", request_id="req-7", deadline=time.monotonic() + 0.3)
    async with served.channel() as bare:
        stub: Any = stubs.RepositoryServiceStub(ServiceChannel(bare, "repository", token))

        async def within() -> None:
            context.bind(call)
            await stub.GetModel(READ)

        await asyncio.create_task(within())

    assert servicer.seen is not None
    assert servicer.seen.request_id == "req-7"
    assert servicer.seen.remaining() < 0.3


async def test_no_call_is_started_after_the_deadline() -> None:
    call = context.CallContext(method="/x", request_id="r", deadline=time.monotonic() - 1)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as bare:
        stub: Any = stubs.RepositoryServiceStub(ServiceChannel(bare, "repository", None))

        async def within() -> None:
            context.bind(call)
            with pytest.raises(DeadlinePassed):
                await stub.GetModel(READ)

        await asyncio.create_task(within())


async def test_the_first_message_of_a_stream_is_authorised_and_not_lost(served: Standalone) -> None:
    async def parts(bucket: str) -> AsyncIterator[messages.UploadArtifactRequest]:
        name = f"buckets/{bucket}/models/iris/uploads/u"
        yield messages.UploadArtifactRequest(name=name, artifact={"data": b"12345"})  # type: ignore[arg-type]
        yield messages.UploadArtifactRequest(artifact={"data": b"678"})  # type: ignore[arg-type]

    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        answer = await stub.UploadArtifact(
            parts("team"), metadata=served.bearer(("editor", "team"))
        )
        assert answer.model_version.size_bytes == 8
        error = await refused(
            stub.UploadArtifact(parts("other"), metadata=served.bearer(("editor", "team")))
        )
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_no_message_is_its_senders_mistake(
    served: Standalone, servicer: Repository
) -> None:
    prefix = "/stellwerk.repository.v1.RepositoryService/"
    whole = messages.UploadArtifactRequest(
        name="buckets/team/models/iris/uploads/u"
    ).SerializeToString()
    metadata = served.bearer(("admin", "*"))
    async with served.channel() as channel:
        unary = await refused(channel.unary_unary(prefix + "GetModel")(b"\xff", metadata=metadata))
        first = await refused(
            channel.stream_unary(prefix + "UploadArtifact")(iter([b"\xff"]), metadata=metadata)
        )
        later = await refused(
            channel.stream_unary(prefix + "UploadArtifact")(
                iter([whole, b"\xff"]), metadata=metadata
            )
        )
        stranger = await refused(channel.unary_unary(prefix + "GetModel")(b"\xff"))

    assert [error.code() for error in (unary, first, later)] == [
        grpc.StatusCode.INVALID_ARGUMENT
    ] * 3
    assert stranger.code() is grpc.StatusCode.UNAUTHENTICATED
    assert servicer.seen is None


async def test_a_stranger_is_refused_before_its_stream_is_waited_for(served: Standalone) -> None:
    async with served.channel() as channel:
        call = stubs.RepositoryServiceStub(channel).UploadArtifact()
        started = time.monotonic()
        error = await refused(call)

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - started < 2.0


async def test_a_stream_that_never_begins_ends_at_its_deadline(served: Standalone) -> None:
    async with served.channel() as channel:
        call = stubs.RepositoryServiceStub(channel).UploadArtifact(
            metadata=served.bearer(("editor", "*")), timeout=0.4
        )
        error = await refused(call)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_paths_that_only_look_like_a_method_do_not_exist(served: Standalone) -> None:
    method = "/stellwerk.repository.v1.RepositoryService/GetModel"
    async with served.channel() as channel:
        for path in [
            method[1:],
            "/" + method,
            method + "/",
            method.replace("GetModel", "%47etModel"),
            method.lower(),
        ]:
            call = channel.unary_unary(path)
            error = await refused(
                call(READ.SerializeToString(), metadata=served.bearer(("admin", "*")))
            )
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED, path


async def test_calls_at_one_time_have_each_its_own_metadata(
    served: Standalone, servicer: Repository
) -> None:
    servicer.seconds = 0.01

    async def ask(stub: Any, number: int) -> None:
        bearer = served.bearer(("viewer", "*"), subject=f"principals/{number}")
        request = messages.GetModelRequest(name=f"buckets/team/models/{number}")
        await stub.GetModel(request, metadata=(*bearer, ("x-request-id", f"request-{number}")))

    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        await asyncio.gather(*(ask(stub, number) for number in range(50)))

    assert {
        name: (call.request_id, call.principal.name)
        for name, call in servicer.calls.items()
        if call.principal
    } == {
        f"buckets/team/models/{number}": (f"request-{number}", f"principals/{number}")
        for number in range(50)
    }
