"""The HTTP door of a running gateway, over a fake platform."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from google.api import httpbody_pb2

from inference import grpc_service_pb2 as inference
from services.wire import errors
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.repository.v1 import repository_service_pb2 as repository
from tests.fakes.upstreams import API_KEY
from tests.integration.gateway import Gateway, running, wait_for


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway() -> AsyncIterator[Gateway]:
    async with running(max_body_bytes=1024 * 1024) as started:
        yield started


@pytest.fixture(autouse=True)
def _forget(gateway: Gateway) -> None:
    gateway.upstreams.scripts.clear()
    gateway.upstreams.calls.clear()


async def test_a_call_goes_through_with_the_callers_token_and_request_id(gateway: Gateway) -> None:
    gateway.upstreams.answer("GetBucket", repository.GetBucketResponse(bucket=repository.Bucket(name="buckets/b")))
    headers = {**gateway.bearer(), "x-request-id": "abc-1", "cookie": "secret", "x-principal": "principals/root"}

    answer = await gateway.http.get("/v1/buckets/b", headers=headers)

    call = gateway.upstreams.last("GetBucket")
    assert answer.status_code == 200
    assert answer.json()["bucket"]["name"] == "buckets/b"
    assert answer.headers["x-request-id"] == "abc-1"
    assert call.request.name == "buckets/b"
    assert call.metadata["authorization"] == headers["authorization"]
    assert call.metadata["x-request-id"] == "abc-1"
    assert not {"cookie", "x-principal"} & set(call.metadata)
    assert 25 < (call.time_remaining or 0) < 30


async def test_a_bad_request_id_is_replaced(gateway: Gateway) -> None:
    for bad in ("x" * 200, "a b", b"a\x01b".decode("latin-1").replace("\x01", "\t") + ";"):
        answer = await gateway.http.get("/v2/health/live", headers={"x-request-id": bad})

        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x y", "Basic abc", "Bearer eyJ.eyJ.x", "Bearer swk_no"])
async def test_without_a_valid_credential_nothing_is_called(gateway: Gateway, header: str | None) -> None:
    answer = await gateway.http.get("/v1/buckets", headers={} if header is None else {"authorization": header})

    body = answer.json()
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (body["code"], body["status"], body["details"][0]["reason"]) == (16, "UNAUTHENTICATED", "UNAUTHENTICATED")
    assert body["details"][0]["domain"] == "stellwerk"
    assert not gateway.upstreams.calls


async def test_a_refusal_at_the_door_is_audited(gateway: Gateway) -> None:
    await gateway.http.get("/v1/runtimes", headers={"authorization": "Bearer nonsense"})

    await wait_for(lambda: any(r.method.endswith("/ListRuntimes") for r in gateway.upstreams.records))


async def test_an_expired_token_is_refused(gateway: Gateway) -> None:
    assert (await gateway.http.get("/v1/buckets", headers=gateway.bearer(exp=1000))).status_code == 401


async def test_an_api_key_is_exchanged_once(gateway: Gateway) -> None:
    before = gateway.upstreams.exchanges
    headers = {"authorization": f"Bearer {API_KEY}"}

    answers = await asyncio.gather(*(gateway.http.get("/v1/buckets", headers=headers) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.upstreams.exchanges <= before + 1
    assert all(API_KEY not in str(call.metadata) for call in gateway.upstreams.calls)


@pytest.mark.parametrize(
    "path",
    ["/v2/health/live", "/v2/health/ready", "/.well-known/jwks.json", "/openapi.json", "/v1/openapi.json", "/docs"],
)
async def test_open_paths_need_no_token(gateway: Gateway, path: str) -> None:
    answer = await gateway.http.get(path)
    head = await gateway.http.head(path)

    assert answer.status_code == head.status_code == 200
    assert head.content == b""


async def test_a_key_is_exchanged_without_a_token(gateway: Gateway) -> None:
    answer = await gateway.http.post("/v1/tokens:issue", json={"apiKey": API_KEY})

    assert answer.status_code == 200
    assert answer.json()["tokenType"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x", field="f"), 400),
        (errors.NotPermitted("x"), 403),
        (errors.ModelNotFound("x"), 404),
        (errors.AlreadyExists("x"), 409),
        (errors.Conflict("x"), 409),
        (errors.NotReady("x"), 400),
        (errors.TooLarge("x"), 413),
        (errors.Overloaded("x"), 429),
        (errors.NoRuntimeAvailable("x"), 503),
        (errors.DeadlinePassed("x"), 504),
        (errors.Corrupt("x"), 500),
        (errors.NotImplementedHere("x"), 501),
    ],
)
async def test_errors_of_upstreams_keep_their_reason(gateway: Gateway, error: errors.ServiceError, status: int) -> None:
    gateway.upstreams.answer("GetModel", error)

    answer = await gateway.http.get("/v1/buckets/b/models/m", headers=gateway.bearer())

    info = answer.json()["details"][0]
    assert answer.status_code == status
    assert info["reason"] == error.reason
    assert info["metadata"] == error.metadata
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_the_words_of_an_unforeseen_error_stay_inside(gateway: Gateway) -> None:
    async def break_down(_request: Any, _context: Any) -> None:
        raise RuntimeError("password=hunter2")

    gateway.upstreams.answer("GetModel", break_down)

    answer = await gateway.http.get("/v1/buckets/b/models/m", headers=gateway.bearer())

    assert answer.status_code == 500
    assert "hunter2" not in answer.text


BAD = [
    ("GET", "/v1/nothing", None, 404),
    ("GET", "/v1/buckets/", None, 404),
    ("PATCH", "/v1/buckets", None, 405),
    ("BREW", "/v1/buckets", None, 400),
    ("GET", "/v1/buckets?x=1", None, 400),
    ("GET", "/v1/buckets/%ff", None, 400),
    ("GET", "/v1/buckets?page_size=1&page_size=2", None, 400),
    ("POST", "/v1/buckets", b"{", 400),
    ("POST", "/v1/buckets", b"[1]", 400),
    ("POST", "/v1/buckets", b'{"nome":1}', 400),
    ("POST", "/v1/buckets", b'{"name":1}', 400),
    ("POST", "/v1/buckets", b"{" + b" " * (1024 * 1024), 413),
    ("POST", "/v1/buckets/b/models/m:predict", b'{"instances":' + b"[" * 500 + b"]" * 500 + b"}", 400),
    ("POST", "/v1/buckets/b/models/m:predict", b'{"inputs":[{"data":"%"}]}', 400),
    ("GET", "/v2/nothing", None, 404),
    ("PUT", "/v2/models/m/infer", b"{}", 405),
    ("POST", "/v2/models/m/infer", b"{", 400),
    ("POST", "/v2/models/m/infer", b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[300]}]}', 400),
    ("POST", "/v2/models/m/infer", b'{"inputs":[{"name":"x","shape":[1099511627776,9,0],"datatype":"INT8","data":[]}]}',
     400),
]  # fmt: skip


@pytest.mark.parametrize(("method", "url", "body", "status"), BAD)
async def test_bad_input_has_its_status_and_calls_nothing(
    gateway: Gateway, method: str, url: str, body: bytes | None, status: int
) -> None:
    answer = await gateway.http.request(method, url, content=body, headers=gateway.bearer())

    assert answer.status_code == status
    assert not gateway.upstreams.calls
    if method != "BREW":
        key = "error" if url.startswith("/v2") else "message"
        assert answer.json()[key]
    if status == 405:
        assert "POST" in answer.headers["allow"]


async def test_bombs_are_found_by_counting(gateway: Gateway) -> None:
    bomb = zlib.compressobj(wbits=31)
    data = b"".join(bomb.compress(b" " * 1_000_000) for _ in range(200)) + bomb.flush()

    answer = await gateway.http.post(
        "/v1/buckets", content=data, headers={**gateway.bearer(), "content-encoding": "gzip"}
    )

    assert answer.status_code == 413


async def test_compressed_bodies(gateway: Gateway) -> None:
    body, headers = b'{"name":"buckets/z"}', gateway.bearer()

    for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        answer = await gateway.http.post("/v1/buckets", content=data, headers={**headers, "content-encoding": encoding})
        assert answer.status_code == 200
        assert gateway.upstreams.last("CreateBucket").request.bucket.name == "buckets/z"
    for encoding, data, status in (
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-9], 400),
        ("gzip", gzip.compress(body) + b"x", 400),
        ("br", body, 415),
        ("gzip, gzip", body, 415),
    ):
        answer = await gateway.http.post("/v1/buckets", content=data, headers={**headers, "content-encoding": encoding})
        assert answer.status_code == status


async def test_large_answers_are_compressed_when_asked(gateway: Gateway) -> None:
    models = [repository.Model(name=f"buckets/b/models/m{n}") for n in range(200)]
    gateway.upstreams.answer("ListModels", repository.ListModelsResponse(models=models))

    plain = await gateway.http.get("/v1/buckets/b/models", headers={**gateway.bearer(), "accept-encoding": "gzip;q=0"})
    packed = await gateway.http.get("/v1/buckets/b/models", headers={**gateway.bearer(), "accept-encoding": "gzip"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.json() == packed.json()


async def test_deadlines_are_passed_on_capped_and_checked(gateway: Gateway) -> None:
    async def ask(**headers: str) -> httpx.Response:
        return await gateway.http.get("/v1/roles", headers={**gateway.bearer(), **headers})

    await ask(**{"x-request-timeout": "1.5"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 9) < 1.5
    await ask(**{"grpc-timeout": "2S"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 9) < 2
    await ask(**{"grpc-timeout": "99999999H"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 999) < 300.5
    for bad in ({"grpc-timeout": "0n"}, {"grpc-timeout": "-1S"}, {"x-request-timeout": "nan"}, {"grpc-timeout": "1"}):
        assert (await ask(**bad)).status_code == 400


async def test_a_slow_upstream_is_a_gateway_timeout(gateway: Gateway) -> None:
    async def sleep(_request: Any, _context: Any) -> None:
        await asyncio.sleep(30)

    gateway.upstreams.answer("ListRoles", sleep)

    answer = await gateway.http.get("/v1/roles", headers={**gateway.bearer(), "x-request-timeout": "0.2"})

    assert answer.status_code == 504


async def test_a_caller_that_goes_away_cancels_its_call(gateway: Gateway) -> None:
    arrived = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        arrived.set()
        await asyncio.sleep(30)

    gateway.upstreams.answer("ListRoles", wait)
    gateway.upstreams.cancelled.clear()
    asking = asyncio.create_task(gateway.http.get("/v1/roles", headers=gateway.bearer()))
    await asyncio.wait_for(arrived.wait(), 5)

    asking.cancel()

    await wait_for(lambda: gateway.upstreams.cancelled)


async def test_an_upload_is_streamed_in_pieces(gateway: Gateway) -> None:
    version = repository.ModelVersion(version=3)
    gateway.upstreams.answer("UploadArtifact", repository.UploadArtifactResponse(model_version=version))
    data = bytes(range(256)) * 12_000  # three times the limit of other bodies

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    answer = await gateway.http.post(
        "/v1/buckets/b/models/m/uploads/u:finish",
        content=pieces(),
        headers={**gateway.bearer(), "content-type": "application/x-skops"},
    )

    messages = gateway.upstreams.last("UploadArtifact").request
    assert answer.json()["modelVersion"]["version"] == "3"
    assert [m.name for m in messages] == ["buckets/b/models/m/uploads/u"] + [""] * (len(messages) - 1)
    assert messages[0].artifact.content_type == "application/x-skops"
    assert b"".join(m.artifact.data for m in messages) == data
    assert 3 <= len(messages) <= 7


async def test_an_empty_upload_is_one_message(gateway: Gateway) -> None:
    await gateway.http.post("/v1/buckets/b/models/m/uploads/u:finish", headers=gateway.bearer())

    [message] = gateway.upstreams.last("UploadArtifact").request
    assert message.name == "buckets/b/models/m/uploads/u"


async def test_an_upload_that_breaks_off_is_never_ended(gateway: Gateway) -> None:
    gateway.upstreams.cancelled.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    head = "POST /v1/buckets/b/models/m/uploads/u:finish HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n"
    before = gateway.upstreams.pieces
    writer.write(f"{head}authorization: {gateway.bearer()['authorization']}\r\n\r\n".encode() + b"x" * 1_000_000)
    await writer.drain()
    await wait_for(lambda: gateway.upstreams.pieces > before)

    writer.close()

    await wait_for(lambda: any("UploadArtifact" in method for method in gateway.upstreams.cancelled))
    assert not [call for call in gateway.upstreams.calls if call.method.endswith("/UploadArtifact")]


async def test_an_upload_refused_early_is_answered_with_the_reason(gateway: Gateway) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 300_000

    gateway.upstreams.early["UploadArtifact"] = errors.UploadNotFound("there is no such upload")

    answer = await gateway.http.post(
        "/v1/buckets/b/models/m/uploads/u:finish", content=pieces(), headers=gateway.bearer()
    )

    gateway.upstreams.early.clear()
    assert answer.status_code == 404
    assert answer.json()["details"][0]["reason"] == "UPLOAD_NOT_FOUND"


async def test_a_download_is_streamed_as_it_is(gateway: Gateway) -> None:
    pieces = [b"a" * 100_000, b"b" * 100_000, b""]
    gateway.upstreams.answer(
        "DownloadArtifact",
        [
            repository.DownloadArtifactResponse(
                artifact=httpbody_pb2.HttpBody(content_type="application/x-skops", data=p)
            )
            for p in pieces
        ],
    )

    answer = await gateway.http.get("/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer())

    assert answer.headers["content-type"] == "application/x-skops"
    assert answer.content == b"".join(pieces)


async def test_a_download_that_fails_at_once_has_its_status(gateway: Gateway) -> None:
    gateway.upstreams.answer("DownloadArtifact", errors.VersionNotFound("there is no such version"))

    answer = await gateway.http.get("/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer())

    assert answer.status_code == 404


async def test_a_download_that_fails_midway_is_seen_to_break_off(gateway: Gateway) -> None:
    piece = repository.DownloadArtifactResponse(artifact=httpbody_pb2.HttpBody(data=b"x" * 1000))
    gateway.upstreams.answer("DownloadArtifact", [piece, errors.Corrupt("damaged")])

    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.get("/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer())


async def test_a_prediction_in_the_inference_protocol(gateway: Gateway) -> None:
    response = inference.ModelInferResponse(model_name="iris", model_version="2", id="7")
    response.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    response.raw_output_contents.append(np.array([1.1, 0.5], "<f4").tobytes())
    gateway.upstreams.answer("ModelInfer", response)
    body = {"id": "7", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[1, 2.5]]}]}

    answer = await gateway.http.post("/v2/models/team%3Airis/versions/2/infer", json=body, headers=gateway.bearer())

    request = gateway.upstreams.last("ModelInfer").request
    assert (request.model_name, request.model_version) == ("team:iris", "2")
    assert np.frombuffer(request.raw_input_contents[0], "<f8").tolist() == [1.0, 2.5]
    assert answer.text == (
        '{"model_name":"iris","model_version":"2","id":"7",'
        '"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1.1,0.5]}]}'
    )


async def test_the_inference_protocols_descriptions(gateway: Gateway) -> None:
    metadata = inference.ModelMetadataResponse(name="iris", versions=["1"], platform="onnx")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    gateway.upstreams.answer("ModelMetadata", metadata)
    gateway.upstreams.answer("ServerMetadata", inference.ServerMetadataResponse(name="stellwerk", version="1"))
    gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=True))
    headers = gateway.bearer()

    model = await gateway.http.get("/v2/models/iris", headers=headers)
    ready = await gateway.http.get("/v2/models/iris/versions/1/ready", headers=headers)
    gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=False))
    not_ready = await gateway.http.get("/v2/models/nope/ready", headers=headers)

    assert model.json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    for path in ("/v2", "/v2/"):
        assert (await gateway.http.get(path, headers=headers)).json()["name"] == "stellwerk"
    assert (ready.status_code, ready.json()) == (200, {"name": "iris", "ready": True})
    assert (not_ready.status_code, not_ready.json()["ready"]) == (404, False)


async def test_options_and_cors_are_closed_by_default(gateway: Gateway) -> None:
    answer = await gateway.http.options("/v1/buckets", headers={"origin": "https://a.example"})

    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "access-control-allow-origin" not in answer.headers


async def test_what_the_gateway_says_of_itself(gateway: Gateway) -> None:
    routes = (await gateway.http.get("/v1/routes", headers=gateway.bearer())).json()["routes"]
    upstreams = (await gateway.http.get("/v1/upstreams", headers=gateway.bearer())).json()["upstreams"]

    rpc = "/stellwerk.repository.v1.RepositoryService/ListBuckets"
    assert {"httpMethod": "GET", "template": "/v1/buckets", "rpc": rpc, "permission": "authenticated"} in routes
    assert {u["service"] for u in upstreams} == {"gateway", "router", "repository", "controlplane"}
    assert all(u["serving"] for u in upstreams)


async def test_a_caller_without_the_permission_learns_nothing_of_upstreams(gateway: Gateway) -> None:
    token = gateway.upstreams.issuer.token("principals/bob", ("caller", "default"))

    answer = await gateway.http.get("/v1/upstreams", headers={"authorization": f"Bearer {token}"})

    assert answer.status_code == 403


async def raw(gateway: Gateway, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(1000)) + b"\r\n",
        b"POST /v1/buckets HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v1/buckets HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_bad_request(gateway: Gateway, data: bytes) -> None:
    answer = await raw(gateway, data)

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")) or answer == b""
    assert (await gateway.http.get("/v2/health/live")).status_code == 200


async def test_an_endless_header_is_cut_off(gateway: Gateway) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    writer.write(b"GET / HTTP/1.1\r\nx: ")
    sent = 0
    try:
        while sent < 50_000_000:
            writer.write(b"a" * 65536)
            await writer.drain()
            sent += 65536
    except ConnectionError:
        pass
    finally:
        writer.close()

    assert sent < 20_000_000


async def test_metrics_are_kept_by_template_and_never_by_path(gateway: Gateway) -> None:
    await gateway.http.get("/v1/buckets/very-special-name", headers=gateway.bearer())
    await gateway.http.get("/wp-admin.php")

    names = [sample for metric in gateway.process.metrics.collect() for sample in metric.samples]
    routes = {s.labels["route"] for s in names if s.name == "stellwerk_http_requests_total"}
    assert "/v1/{name=buckets/*}" in routes
    assert not any("special" in route or "wp-admin" in route for route in routes)


async def test_an_absent_upstream_is_unavailable_in_our_words(gateway: Gateway) -> None:
    async with running() as other:
        await other.http.get("/v1/buckets", headers=other.bearer())
        headers = other.bearer()
        await other.upstreams.server.stop(None)

        answer = await other.http.get("/v1/buckets", headers={**headers, "x-request-timeout": "5"})
        ready = await other.http.get("/v2/health/ready")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in answer.text
    assert ready.status_code == 503
    assert ready.json()["ready"] is False


async def test_pages_of_allowed_origins_may_call() -> None:
    async with running(allow_origins="https://a.example, https://b.example") as other:
        headers = {"origin": "https://b.example", "access-control-request-method": "POST"}
        preflight = await other.http.options("/v1/buckets", headers=headers)
        stranger = await other.http.get("/v2/health/live", headers={"origin": "https://c.example"})

    assert preflight.headers["access-control-allow-origin"] == "https://b.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in stranger.headers


async def test_what_is_in_hand_is_finished_when_the_gateway_stops() -> None:
    async with running() as other:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def wait(_request: Any, _context: Any) -> identity.ListRolesResponse:
            arrived.set()
            await go_on.wait()
            return identity.ListRolesResponse()

        other.upstreams.answer("ListRoles", wait)
        asking = asyncio.create_task(other.http.get("/v1/roles", headers=other.bearer()))
        await arrived.wait()

        other.process.stop()
        await wait_for(lambda: other.process.readiness.reasons())
        go_on.set()

        assert (await asking).status_code == 200
