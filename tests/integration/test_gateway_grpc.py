"""The gRPC door of a running gateway: what is public passes unchanged, all else does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.api import httpbody_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.api_gateway.routing import exposed_services
from services.chassis import rpc_status
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.gateway.v1 import gateway_service_pb2 as own
from stellwerk.gateway.v1 import gateway_service_pb2_grpc as own_stubs
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.inference.v2 import grpc_service_pb2_grpc as inference_stubs
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.repository.v1 import repository_service_pb2_grpc as repository_stubs
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import errors
from tests.fakes.upstreams import API_KEY
from tests.integration.gateway import Gateway, running, wait_for


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway() -> AsyncIterator[Gateway]:
    async with running() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def channel(gateway: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(gateway.grpc_address, options=options) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _forget(gateway: Gateway) -> None:
    gateway.upstreams.scripts.clear()
    gateway.upstreams.calls.clear()


def credentials(gateway: Gateway) -> list[tuple[str, str]]:
    return list(gateway.bearer().items())


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


async def test_every_public_method_passes_and_reaches_its_service(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    gateway.upstreams.answer("IssueToken", identity.IssueTokenResponse())
    unary = [
        n
        for n, m in exposed_services.public_methods().items()
        if not (m.client_streaming or m.server_streaming)
    ]
    sent = credentials(gateway)

    for name in unary:
        code = await code_of(channel.unary_unary(name)(b"", metadata=sent))
        assert code is grpc.StatusCode.OK, name

    own_methods = {name for name in unary if name.startswith("/stellwerk.gateway.")}
    passed = {call.method for call in gateway.upstreams.calls} - {"/Call"}
    assert passed == set(unary) - own_methods - {"/inference.GRPCInferenceService/ModelInfer"}
    assert gateway.upstreams.last("Call").metadata["authorization"] == dict(sent)["authorization"]


@pytest.mark.parametrize(
    "method",
    [
        "/stellwerk.controlplane.v1.IdentityService/GetTrust",
        "/stellwerk.controlplane.v1.AuditService/AppendRecords",
        "/stellwerk.router.v1.FleetService/Attach",
        "/stellwerk.job.v1.PullService/Exchange",
        "/stellwerk.repository.v1.RepositoryService/Nothing",
        "/RepositoryService/GetBucket",
        "//stellwerk.repository.v1.RepositoryService/GetBucket",
        "/stellwerk.repository.v1.RepositoryService//GetBucket",
        "/stellwerk.repository.v1.RepositoryService/GetBucket/",
        "/stellwerk.repository.v1.RepositoryService/%47etBucket",
        "/stellwerk.repository.v1.repositoryservice/getbucket",
        "/x/stellwerk.repository.v1.RepositoryService/GetBucket",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_what_is_not_public_does_not_exist(
    gateway: Gateway, channel: grpc.aio.Channel, method: str
) -> None:
    code = await code_of(channel.unary_unary(method)(b"", metadata=credentials(gateway)))

    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert not gateway.upstreams.calls


async def test_without_a_token_nothing_is_called(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    anonymous = {
        n
        for n, m in exposed_services.public_methods().items()
        if n.endswith(("IssueToken", "GetJwks", "Live", "Ready"))
    }
    for name, method in exposed_services.public_methods().items():
        if name in anonymous and not name.endswith("ModelReady"):
            continue
        sides = (method.client_streaming, method.server_streaming)
        call = getattr(channel, "_".join("stream" if streams else "unary" for streams in sides))(
            name
        )
        request: Any = iter([b""]) if method.client_streaming else b""
        code = await (
            code_of(call(request)) if not method.server_streaming else _stream_code(call(request))
        )
        assert code is grpc.StatusCode.UNAUTHENTICATED, name
    assert not gateway.upstreams.calls


async def _stream_code(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    return code


async def test_errors_keep_reason_metadata_and_retry(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    error = errors.NoRuntimeAvailable("no runtime has cuda", retry_after_ms=700, kind="cuda")
    gateway.upstreams.answer("GetModel", error)
    stub: Any = repository_stubs.RepositoryServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetModel(repository.GetModelRequest(name="x"), metadata=credentials(gateway))

    exc = caught.value
    known: Any = rpc_status.parse(exc.code(), exc.details() or "", exc.trailing_metadata())  # type: ignore[arg-type]
    assert isinstance(known, errors.NoRuntimeAvailable)
    assert (known.message, known.metadata, known.retry_after) == (
        error.message,
        {"kind": "cuda"},
        700,
    )


async def test_an_api_key_deadline_and_request_id_are_handed_on(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    stub: Any = repository_stubs.RepositoryServiceStub(channel)
    metadata = [("authorization", f"Bearer {API_KEY}"), ("x-request-id", "r-1"), ("x-secret", "s")]

    await stub.GetModel(repository.GetModelRequest(name="x"), metadata=metadata, timeout=3)

    call = gateway.upstreams.last("GetModel")
    assert call.metadata["authorization"].startswith("Bearer eyJ")
    assert call.metadata["x-request-id"] == "r-1"
    assert "x-secret" not in call.metadata
    assert 2 < (call.time_remaining or 0) < 3


async def test_a_call_without_deadline_gets_one(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    stub: Any = repository_stubs.RepositoryServiceStub(channel)

    await stub.GetModel(repository.GetModelRequest(name="x"), metadata=credentials(gateway))

    assert 0 < (gateway.upstreams.last("GetModel").time_remaining or 0) <= 300


async def test_uploads_and_downloads_are_streams(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    stub: Any = repository_stubs.RepositoryServiceStub(channel)
    pieces = [
        repository.UploadArtifactRequest(
            name="u", artifact=httpbody_pb2.HttpBody(data=bytes([n]) * 100_000)
        )
        for n in range(5)
    ]
    gateway.upstreams.answer(
        "UploadArtifact",
        repository.UploadArtifactResponse(model_version=repository.ModelVersion(version=1)),
    )
    gateway.upstreams.answer(
        "DownloadArtifact",
        [repository.DownloadArtifactResponse(artifact=piece.artifact) for piece in pieces],
    )

    uploaded = await stub.UploadArtifact(iter(pieces), metadata=credentials(gateway))
    call = stub.DownloadArtifact(
        repository.DownloadArtifactRequest(name="v"), metadata=credentials(gateway)
    )
    downloaded = [message async for message in call]

    assert uploaded.model_version.version == 1
    assert gateway.upstreams.last("UploadArtifact").request == pieces
    assert [message.artifact for message in downloaded] == [piece.artifact for piece in pieces]


async def test_a_caller_that_goes_away_cancels_its_call(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    arrived = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    gateway.upstreams.answer("GetModel", wait)
    gateway.upstreams.cancelled.clear()
    stub: Any = repository_stubs.RepositoryServiceStub(channel)
    call = stub.GetModel(repository.GetModelRequest(name="x"), metadata=credentials(gateway))
    await asyncio.wait_for(arrived.wait(), 5)

    call.cancel()

    await wait_for(lambda: gateway.upstreams.cancelled)


async def test_an_upload_that_breaks_off_is_never_ended(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    gateway.upstreams.cancelled.clear()
    before = gateway.upstreams.pieces
    stub: Any = repository_stubs.RepositoryServiceStub(channel)
    call = stub.UploadArtifact(metadata=credentials(gateway))
    await call.write(
        repository.UploadArtifactRequest(name="u", artifact=httpbody_pb2.HttpBody(data=b"x"))
    )
    await wait_for(lambda: gateway.upstreams.pieces > before)

    call.cancel()

    await wait_for(lambda: gateway.upstreams.cancelled)
    assert not gateway.upstreams.calls


async def test_large_tensors_pass_in_both_directions(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    data = b"\x01" * (20 * 1024 * 1024)
    tensor = tensor_pb2.Tensor(name="x", datatype="UINT8", shape=[len(data)], data=data)
    gateway.upstreams.answer("Call", work_pb2.WorkReply(outputs=[tensor]))
    stub: Any = inference_stubs.GRPCInferenceServiceStub(channel)
    request = inference.ModelInferRequest(model_name="m", raw_input_contents=[data])
    request.inputs.add(name="x", datatype="UINT8", shape=[len(data)])

    answer = await stub.ModelInfer(request, metadata=credentials(gateway))

    assert answer.raw_output_contents[0] == data
    assert gateway.upstreams.last("Call").request.work.inputs[0] == tensor


async def test_the_gateway_answers_for_itself_by_its_own_rules(
    gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    stub: Any = own_stubs.GatewayServiceStub(channel)
    caller = gateway.upstreams.issuer.token("principals/bob", ("caller", "*"))

    upstreams = await stub.ListUpstreams(own.ListUpstreamsRequest(), metadata=credentials(gateway))
    refused = await code_of(
        stub.ListUpstreams(
            own.ListUpstreamsRequest(), metadata=[("authorization", f"Bearer {caller}")]
        )
    )

    assert [upstream.service for upstream in upstreams.upstreams] == [
        "controlplane",
        "gateway",
        "repository",
        "router",
    ]
    assert refused is grpc.StatusCode.PERMISSION_DENIED


async def test_reflection_is_there_only_when_switched_on() -> None:
    async with (
        running(reflection=True) as other,
        grpc.aio.insecure_channel(other.grpc_address) as channel,
    ):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [
            a async for a in stub.ServerReflectionInfo(iter([request]), metadata=credentials(other))
        ]
        refused = await stub.ServerReflectionInfo(iter([request])).code()

    names = {service.name for service in answers[0].list_services_response.service}
    assert "stellwerk.repository.v1.RepositoryService" in names
    assert refused is grpc.StatusCode.UNAUTHENTICATED
