"""Bodies through the HTTP door: compressed, too large, streamed up and down, broken off."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from google.api import httpbody_pb2

from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.wire import errors
from tests.integration.gateway import Gateway, wait_for

BUCKET = b'{"name":"buckets/z"}'


async def test_bombs_are_found_by_counting(gateway: Gateway) -> None:
    bomb = zlib.compressobj(wbits=31)
    data = b"".join(bomb.compress(b" " * 1_000_000) for _ in range(200)) + bomb.flush()

    answer = await gateway.http.post(
        "/v1/buckets", content=data, headers={**gateway.bearer(), "content-encoding": "gzip"}
    )

    assert answer.status_code == 413


async def test_compressed_bodies(gateway: Gateway) -> None:
    body, headers = b'{"name":"buckets/z"}', gateway.bearer()

    for encoding, data in (
        ("gzip", gzip.compress(body)),
        ("deflate", zlib.compress(body)),
        ("identity", body),
    ):
        answer = await gateway.http.post(
            "/v1/buckets", content=data, headers={**headers, "content-encoding": encoding}
        )
        assert answer.status_code == 200
        assert gateway.upstreams.last("CreateBucket").request.bucket.name == "buckets/z"
    for encoding, data, status in (
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-9], 400),
        ("gzip", gzip.compress(body) + b"x", 400),
        ("br", body, 415),
        ("gzip, gzip", body, 415),
    ):
        answer = await gateway.http.post(
            "/v1/buckets", content=data, headers={**headers, "content-encoding": encoding}
        )
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("x-gzip", gzip.compress(BUCKET)),
        ("X-GZIP", gzip.compress(BUCKET)),
        ("identity, gzip", gzip.compress(BUCKET)),
        ("gzip", gzip.compress(BUCKET[:5]) + gzip.compress(BUCKET[5:])),
        ("gzip", gzip.compress(b"") + gzip.compress(BUCKET) + gzip.compress(b"")),
        ("x-gzip", b"".join(gzip.compress(bytes([byte])) for byte in BUCKET)),
    ],
)
async def test_gzip_by_its_other_name_and_of_several_members(
    gateway: Gateway, encoding: str, data: bytes
) -> None:
    headers = {**gateway.bearer(), "content-encoding": encoding}

    answer = await gateway.http.post("/v1/buckets", content=data, headers=headers)

    assert answer.status_code == 200
    assert gateway.upstreams.last("CreateBucket").request.bucket.name == "buckets/z"


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("gzip", gzip.compress(BUCKET) + gzip.compress(b" ")[:-4], 400),
        ("gzip", gzip.compress(BUCKET) + b"\x1f\x8b", 400),
        ("deflate", zlib.compress(BUCKET[:5]) + zlib.compress(BUCKET[5:]), 400),
        ("gzip", gzip.compress(b" " * 600_000) * 2, 413),
        ("x-gzip, gzip", gzip.compress(gzip.compress(BUCKET)), 415),
    ],
)
async def test_members_that_break_off_or_are_too_many_are_refused(
    gateway: Gateway, encoding: str, data: bytes, status: int
) -> None:
    headers = {**gateway.bearer(), "content-encoding": encoding}

    answer = await gateway.http.post("/v1/buckets", content=data, headers=headers)

    assert answer.status_code == status


async def test_an_upload_of_several_gzip_members_is_stored_as_one(gateway: Gateway) -> None:
    artifact = bytes(range(256)) * 8192
    members = b"".join(gzip.compress(artifact[at : at + 9999]) for at in range(0, 2**21, 9999))
    url = "/v1/buckets/b/models/m/uploads/u:finish"
    headers = {**gateway.bearer(), "content-encoding": "x-gzip"}

    whole = await gateway.http.post(url, content=members, headers=headers)
    broken = await gateway.http.post(url, content=members[:-5], headers=headers)

    pieces = gateway.upstreams.calls[0].request
    assert whole.status_code == 200
    assert b"".join(piece.artifact.data for piece in pieces) == artifact
    assert broken.status_code == 400


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("x-gzip", "gzip"),
        ("x-gzip;q=0, deflate", "deflate"),
        ("x-gzip;q=0", None),
        ("gzip;q=0, x-gzip", "gzip"),
        ("*", "gzip"),
        ("x-gzip;q=0, *", "deflate"),
    ],
)
async def test_answers_are_compressed_for_who_names_gzip_otherwise(
    gateway: Gateway, asked: str, given: str | None
) -> None:
    models = [repository.Model(name=f"buckets/b/models/m{n}") for n in range(200)]
    gateway.upstreams.answer("ListModels", repository.ListModelsResponse(models=models))
    headers = {**gateway.bearer(), "accept-encoding": asked}

    answer = await gateway.http.get("/v1/buckets/b/models", headers=headers)

    assert answer.headers.get("content-encoding") == given
    assert len(answer.json()["models"]) == 200


async def test_large_answers_are_compressed_when_asked(gateway: Gateway) -> None:
    models = [repository.Model(name=f"buckets/b/models/m{n}") for n in range(200)]
    gateway.upstreams.answer("ListModels", repository.ListModelsResponse(models=models))

    plain = await gateway.http.get(
        "/v1/buckets/b/models", headers={**gateway.bearer(), "accept-encoding": "gzip;q=0"}
    )
    packed = await gateway.http.get(
        "/v1/buckets/b/models", headers={**gateway.bearer(), "accept-encoding": "gzip"}
    )

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.json() == packed.json()


async def test_an_upload_is_streamed_in_pieces(gateway: Gateway) -> None:
    version = repository.ModelVersion(version=3)
    gateway.upstreams.answer(
        "UploadArtifact", repository.UploadArtifactResponse(model_version=version)
    )
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
    assert [m.name for m in messages] == ["buckets/b/models/m/uploads/u"] + [""] * (
        len(messages) - 1
    )
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
    head = (
        "POST /v1/buckets/b/models/m/uploads/u:finish HTTP/1.1\r\nhost: x\r\ncontent-length:"
        " 5000000\r\n"
    )
    before = gateway.upstreams.pieces
    writer.write(
        f"{head}authorization: {gateway.bearer()['authorization']}\r\n\r\n".encode()
        + b"x" * 1_000_000
    )
    await writer.drain()
    await wait_for(lambda: gateway.upstreams.pieces > before)

    writer.close()

    await wait_for(
        lambda: any("UploadArtifact" in method for method in gateway.upstreams.cancelled)
    )
    assert not [call for call in gateway.upstreams.calls if call.method.endswith("/UploadArtifact")]


async def test_an_upload_refused_early_is_answered_with_the_reason(gateway: Gateway) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 300_000

    gateway.upstreams.early["UploadArtifact"] = errors.UploadNotFound("there is no such upload")
    url = "/v1/buckets/b/models/m/uploads/u:finish"

    # Which of the answer and the failed write is seen first is a matter of luck.
    answers = [
        await gateway.http.post(url, content=pieces(), headers=gateway.bearer()) for _ in range(20)
    ]

    gateway.upstreams.early.clear()
    assert {answer.json()["details"][0]["reason"] for answer in answers} == {"UPLOAD_NOT_FOUND"}
    assert {answer.status_code for answer in answers} == {404}


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

    answer = await gateway.http.get(
        "/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer()
    )

    assert answer.headers["content-type"] == "application/x-skops"
    assert answer.content == b"".join(pieces)


async def test_a_download_that_fails_at_once_has_its_status(gateway: Gateway) -> None:
    gateway.upstreams.answer("DownloadArtifact", errors.VersionNotFound("there is no such version"))

    answer = await gateway.http.get(
        "/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer()
    )

    assert answer.status_code == 404


async def test_a_download_that_fails_midway_is_seen_to_break_off(gateway: Gateway) -> None:
    piece = repository.DownloadArtifactResponse(artifact=httpbody_pb2.HttpBody(data=b"x" * 1000))
    gateway.upstreams.answer("DownloadArtifact", [piece, errors.Corrupt("damaged")])

    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.get(
            "/v1/buckets/b/models/m/versions/1:download", headers=gateway.bearer()
        )


@pytest.mark.parametrize("framing", ["content-length: 2000000", "transfer-encoding: chunked"])
async def test_who_sends_too_much_can_still_read_the_answer(gateway: Gateway, framing: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    token = gateway.bearer()["authorization"]
    head = (
        f"POST /v1/buckets HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\nconnection:"
        f" close\r\n{framing}\r\n\r\n"
    )
    writer.write(head.encode())
    data = b" " * 100_000
    for _ in range(20):
        writer.write(data if "length" in framing else b"186a0\r\n" + data + b"\r\n")
        await writer.drain()
    if "chunked" in framing:
        writer.write(b"0\r\n\r\n")

    answer = await asyncio.wait_for(reader.read(), 10)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"TOO_LARGE" in answer
    writer.close()


async def test_who_asks_before_sending_is_told_at_once(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    head = (
        "POST /v1/buckets HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length:"
        " 99999999\r\n"
    )
    writer.write(f"{head}authorization: {gateway.bearer()['authorization']}\r\n\r\n".encode())

    assert (
        await asyncio.wait_for(reader.readuntil(b"\r\n"), 2)
        == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    )
    writer.close()
