"""Bad input at the HTTP door: it has its status, calls nothing and breaks nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.gateway import Gateway, running, wait_for


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
    ("POST", "/v1/buckets/b/models/m:predict",
     b'{"instances":' + b"[" * 500 + b"]" * 500 + b"}", 400),
    ("POST", "/v1/buckets/b/models/m:predict", b'{"inputs":[{"data":"%"}]}', 400),
    ("GET", "/v2/nothing", None, 404),
    ("PUT", "/v2/models/m/infer", b"{}", 405),
    ("POST", "/v2/models/m/infer", b"{", 400),
    ("POST", "/v2/models/m/infer",
     b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[300]}]}', 400),
    ("POST", "/v2/models/m/infer",
     b'{"inputs":[{"name":"x","shape":[1099511627776,9,0],"datatype":"INT8","data":[]}]}', 400),
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


async def test_options_and_cors_are_closed_by_default(gateway: Gateway) -> None:
    answer = await gateway.http.options("/v1/buckets", headers={"origin": "https://a.example"})

    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "access-control-allow-origin" not in answer.headers


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
        b"GET / HTTP/1.1\r\nhost: x\r\n"
        + b"".join(b"a%d: b\r\n" % n for n in range(1000))
        + b"\r\n",
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

    def routes() -> set[str]:
        samples = [
            sample for metric in gateway.process.metrics.collect() for sample in metric.samples
        ]
        return {s.labels["route"] for s in samples if s.name == "stellwerk_http_requests_total"}

    await wait_for(lambda: {"/v1/{name=buckets/*}", "(none)"} <= routes())
    assert not any("special" in route or "wp-admin" in route for route in routes())


async def test_pages_of_allowed_origins_may_call() -> None:
    async with running(allow_origins="https://a.example, https://b.example") as other:
        headers = {"origin": "https://b.example", "access-control-request-method": "POST"}
        preflight = await other.http.options("/v1/buckets", headers=headers)
        stranger = await other.http.get("/v2/health/live", headers={"origin": "https://c.example"})

    assert preflight.headers["access-control-allow-origin"] == "https://b.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nhost: "])
async def test_a_head_that_never_ends_is_given_up(beginning: bytes) -> None:
    async with running(header_seconds=0.2) as other:
        reader, writer = await asyncio.open_connection("127.0.0.1", other.http_port)
        writer.write(beginning)

        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_connection_is_kept_open_between_requests() -> None:
    async with running(header_seconds=0.2) as other:
        reader, writer = await asyncio.open_connection("127.0.0.1", other.http_port)
        for _ in range(3):
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.4)
        writer.close()


async def test_a_head_in_two_pieces_with_much_body_behind_it_is_no_offence(
    gateway: Gateway,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    token = gateway.bearer()["authorization"]
    head = (
        f"POST /v1/buckets HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length:"
        " 500000\r\n".encode()
    )
    writer.write(head)
    await writer.drain()
    writer.write(b"\r\n{" + b" " * 499_998 + b"}")

    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    writer.close()
