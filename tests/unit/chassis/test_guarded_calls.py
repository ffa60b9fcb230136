"""Calls behind the guard: deadlines, streams, unreadable messages and metadata."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.chassis import context
from services.chassis.access.token_verifier import SEVERAL
from services.chassis.rpc.channel import ServiceChannel
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from stellwerk.wire.errors import (
    DeadlinePassed,
)
from tests.fakes.guarded_repository import READ, Repository, refused
from tests.fakes.process import Standalone


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


async def test_two_authorization_values_are_refused_even_if_either_is_good(
    served: Standalone, servicer: Repository
) -> None:
    good = served.bearer(("viewer", "*"))
    bad = (("authorization", "Bearer nonsense"),)
    async with served.channel() as channel:
        stub = stubs.RepositoryServiceStub(channel)
        errors = [
            await refused(stub.GetModel(READ, metadata=metadata))
            for metadata in (good + bad, bad + good, good + good)
        ]

    assert {(error.code(), error.details()) for error in errors} == {
        (grpc.StatusCode.UNAUTHENTICATED, SEVERAL)
    }
    assert servicer.seen is None


async def test_two_authorization_values_are_refused_on_a_stream(served: Standalone) -> None:
    async with served.channel() as channel:
        call = stubs.RepositoryServiceStub(channel).DownloadArtifact(
            messages.DownloadArtifactRequest(name="buckets/team/models/iris/versions/1"),
            metadata=served.bearer(("viewer", "*")) * 2,
        )
        error = await refused(call.read())

    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, SEVERAL)


async def test_of_two_request_ids_neither_counts(served: Standalone, servicer: Repository) -> None:
    metadata = (
        *served.bearer(("viewer", "*")),
        ("x-request-id", "first"),
        ("x-request-id", "second"),
    )
    async with served.channel() as channel:
        await stubs.RepositoryServiceStub(channel).GetModel(READ, metadata=metadata)

    assert servicer.seen is not None
    assert servicer.seen.request_id not in ("first", "second", "first,second")


async def test_repeated_trace_states_are_one_list(served: Standalone, servicer: Repository) -> None:
    metadata = (
        *served.bearer(("viewer", "*")),
        ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        ("tracestate", "one=1"),
        ("tracestate", "two=2"),
    )
    async with served.channel() as channel:
        await stubs.RepositoryServiceStub(channel).GetModel(READ, metadata=metadata)

    assert servicer.seen is not None
    assert servicer.seen.tracestate == "one=1,two=2"
