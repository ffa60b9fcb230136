"""Header fields that are missing, sent twice or not what they must be (RFC 9110, RFC 9112)."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.fakes.upstreams import API_KEY
from tests.integration.gateway import Gateway

LIVE = "/v2/health/live"


async def ask(gateway: Gateway, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], dict]:
    """Sends a request, line by line as given, and returns its status, headers and JSON body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
        status, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
        text = await reader.readexactly(int(headers["content-length"]))
        return int(status.split(" ")[1]), headers, json.loads(text)
    finally:
        writer.close()


def authorization(gateway: Gateway) -> str:
    return f"Authorization: {gateway.bearer()['authorization']}"


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["Host: a", "Host: a"],
        ["Host: a", "Host: b"],
        ["Host: a b"],
        ["Host: a/b"],
        ["Host: user@a"],
        ["Host: a:80x"],
        ["Host: [::1"],
        ["Host: \xff"],
    ],
)
async def test_a_request_without_one_valid_host_is_a_bad_request(
    gateway: Gateway, hosts: list[str]
) -> None:
    for path in (LIVE, "/v1/buckets", "/docs", "/nothing"):
        status, _, body = await ask(gateway, f"GET {path} HTTP/1.1", *hosts)

        assert status == 400
        assert "one Host header" in (body["error"] if path == LIVE else body["message"])
    assert not gateway.upstreams.calls


@pytest.mark.parametrize(
    "host", ["a", "127.0.0.1:8080", "[::1]:8080", "models.example.com:443", "a_b", "a%2Db", ""]
)
async def test_any_host_will_do(gateway: Gateway, host: str) -> None:
    assert (await ask(gateway, f"GET {LIVE} HTTP/1.1", f"Host: {host}"))[0] == 200


async def test_http_1_0_needs_no_host(gateway: Gateway) -> None:
    assert (await ask(gateway, f"GET {LIVE} HTTP/1.0"))[0] == 200


async def test_two_authorization_headers_are_a_bad_request_even_if_they_agree(
    gateway: Gateway,
) -> None:
    good = authorization(gateway)

    for second in (good, "authorization: Bearer other"):
        for path, key in (("/v1/buckets", "message"), ("/v2/models/m/infer", "error")):
            status, _, body = await ask(
                gateway, f"GET {path} HTTP/1.1", "Host: a", good, "X: y", second
            )

            assert status == 400
            assert body[key] == "the header Authorization is given twice; send it once"
    assert not gateway.upstreams.calls


async def test_other_single_fields_sent_twice_are_bad_requests(gateway: Gateway) -> None:
    body = b"{}"
    for twice in (
        ["Content-Type: application/json", "Content-Type: text/plain"],
        ["X-Request-Timeout: 1", "X-Request-Timeout: 2"],
        ["Grpc-Timeout: 1S", "Grpc-Timeout: 1S"],
        ["Inference-Header-Content-Length: 2", "Inference-Header-Content-Length: 2"],
    ):
        status, _, answer = await ask(
            gateway,
            "POST /v2/models/m/infer HTTP/1.1",
            "Host: a",
            authorization(gateway),
            f"Content-Length: {len(body)}",
            *twice,
            body=body,
        )

        assert status == 400, twice
        assert answer["error"]


async def test_two_request_ids_are_none(gateway: Gateway) -> None:
    ids = ["X-Request-Id: one", "X-Request-Id: two"]

    _, headers, _ = await ask(gateway, f"GET {LIVE} HTTP/1.1", "Host: a", *ids)

    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])


async def test_two_traceparents_are_none(gateway: Gateway) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    lines = ["Host: a", authorization(gateway), f"traceparent: {parent}", f"traceparent: {parent}"]

    status, _, _ = await ask(gateway, "GET /v1/buckets HTTP/1.1", *lines)

    assert status == 200
    assert "a" * 32 not in gateway.upstreams.last("ListBuckets").metadata.get("traceparent", "")


async def test_lists_in_several_lines_are_one_list(gateway: Gateway) -> None:
    lines = ["Host: a", authorization(gateway), "Content-Length: 2"]
    head = ["POST /v1/buckets HTTP/1.1", *lines]

    plain = await ask(gateway, *head, *["Content-Encoding: identity"] * 2, body=b"{}")
    over = await ask(gateway, *head, *["Content-Encoding: gzip"] * 2, body=b"{}")

    assert plain[0] == 200
    assert over[0] == 415


@pytest.mark.parametrize("lengths", [("2", "2"), ("2", "3"), ("2, 2", "2")])
async def test_two_lengths_of_a_body_are_refused(
    gateway: Gateway, lengths: tuple[str, str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    fields = "".join(f"Content-Length: {length}\r\n" for length in lengths)
    writer.write(f"POST /v1/buckets HTTP/1.1\r\nHost: a\r\n{fields}\r\n{{}}".encode())

    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert not gateway.upstreams.calls


ISSUE = "POST /v1/tokens:issue HTTP/1.1"


async def test_a_client_that_offers_http_2_is_served_over_http_1(gateway: Gateway) -> None:
    body = json.dumps({"apiKey": API_KEY}).encode()
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]

    status, _, answer = await ask(
        gateway, ISSUE, "Host: a", *offer, f"Content-Length: {len(body)}", body=body
    )

    assert (status, answer["tokenType"]) == (200, "Bearer")


async def test_a_token_in_a_trailer_signs_nobody_in(gateway: Gateway) -> None:
    lines = ("POST /v1/buckets HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
    body = f"2\r\n{{}}\r\n0\r\n{authorization(gateway)}\r\n\r\n".encode()

    status, _, _ = await ask(gateway, *lines, body=body)

    assert status == 401
    assert not gateway.upstreams.calls


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity, chunked"])
async def test_a_transfer_coding_that_is_not_taken_is_refused(
    gateway: Gateway, coding: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    fields = f"Host: a\r\n{authorization(gateway)}\r\nTransfer-Encoding: {coding}"
    writer.write(f"POST /v1/buckets HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n".encode())

    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert not gateway.upstreams.calls
