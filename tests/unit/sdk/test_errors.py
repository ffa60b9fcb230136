"""Errors over both transports become the same class; what is no error of the platform's becomes a
fitting one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from tenacity import Retrying

from stellwerk.client import errors
from stellwerk.client.session.retry import RetryBudget, rules
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.async_http import AsyncHttpTransport
from stellwerk.client.transport.http import HttpTransport
from stellwerk.router.v1.router_service_pb2 import ListRuntimesRequest, PredictRequest
from stellwerk.wire.errors import BY_REASON, ServiceError
from tests.unit.sdk.fake_platform import rich_status

ADDRESS = "http://example.test"


@pytest.mark.parametrize("cls", BY_REASON.values(), ids=lambda cls: cls.__name__)
def test_every_error_comes_back_over_http_as_it_was(cls: type[ServiceError]) -> None:
    raised = cls("what to do", model="m", retry_after_ms=1500)
    body = orjson.dumps(json_format.MessageToDict(rich_status(raised)))

    found = errors.from_http(599, {}, body, ADDRESS)

    assert type(found) is cls
    assert (found.message, found.metadata, found.retry_after) == (
        "what to do",
        {"model": "m"},
        1500,
    )


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        *[
            (401, "Unauthenticated"),
            (403, "NotPermitted"),
            (404, "NotFound"),
            (413, "TooLarge"),
            (418, "Internal"),
        ],
        *[
            (429, "Overloaded"),
            (500, "Internal"),
            (502, "Unavailable"),
            (503, "Unavailable"),
            (504, "DeadlinePassed"),
        ],
    ],
)
def test_a_proxys_page_is_understood_by_its_status(status: int, cls: str) -> None:
    found = errors.from_http(status, {"retry-after": "2"}, b"<html>nginx</html>", ADDRESS)

    assert type(found) is getattr(errors, cls)
    if status != 413:
        assert (found.message, found.retry_after) == (f"{ADDRESS} answered HTTP {status}", 2000)


@pytest.mark.parametrize(
    "body", [b"[]", b'{"code":99,"message":""}', b'{"code":5}', b'{"code":[],"message":""}', b"3"]
)
def test_json_that_is_no_error_of_ours_is_understood_by_its_status(body: bytes) -> None:
    assert type(errors.from_http(404, {}, body, ADDRESS)) is errors.NotFound


class Server:
    """An HTTP server on a free port that answers every connection with the same bytes."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.seen: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.seen.append(connection.recv(1 << 16))
            if self._answer is None:
                self._held.append(connection)
                continue
            connection.sendall(self._answer)
            connection.close()

    def close(self) -> None:
        for connection in (self._listener, *self._held):
            connection.close()


@contextmanager
def server(answer: bytes | None) -> Iterator[Server]:
    """A server that answers with these bytes and hangs up, or never answers."""
    opened = Server(answer)
    try:
        yield opened
    finally:
        opened.close()


async def ask(kind: str, url: str, timeout: float, request: Any = None) -> Any:
    """Sends one request over a blocking or an awaited HTTP transport."""
    request = ListRuntimesRequest() if request is None else request
    if kind == "blocking":
        transport = HttpTransport(Endpoint(url, "t"))
        try:
            return await asyncio.to_thread(transport.call, request, timeout)
        finally:
            transport.close()
    awaited = AsyncHttpTransport(Endpoint(url, "t"))
    try:
        return await awaited.call(request, timeout)
    finally:
        await awaited.close()


KINDS = pytest.mark.parametrize("kind", ["blocking", "awaited"])
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@KINDS
async def test_nothing_at_the_address_is_a_sentence(kind: str, unused_tcp_port: int) -> None:
    with pytest.raises(errors.Unavailable, match=r"nothing answers at http://127\.0\.0\.1"):
        await ask(kind, f"http://127.0.0.1:{unused_tcp_port}", 3)


@KINDS
async def test_a_name_that_is_no_host_is_a_sentence(kind: str) -> None:
    with pytest.raises(errors.Unavailable, match=r"nothing answers at http://nosuch\.invalid"):
        await ask(kind, "http://nosuch.invalid:1", 3)


@KINDS
async def test_no_answer_in_time_is_a_sentence(kind: str) -> None:
    with server(None) as silent, pytest.raises(errors.DeadlinePassed, match=r"within 0\.1 s"):
        await ask(kind, silent.url, 0.1)


@KINDS
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"])
async def test_a_connection_that_breaks_off_is_a_sentence(kind: str, answer: bytes) -> None:
    with server(answer) as broken, pytest.raises(errors.Unavailable, match="broke off"):
        await ask(kind, broken.url, 3)


@KINDS
async def test_an_answer_that_is_no_http_is_a_sentence(kind: str) -> None:
    with server(b"nonsense\r\n\r\n") as other, pytest.raises(errors.Unavailable) as caught:
        await ask(kind, other.url, 3)

    assert caught.value.message.startswith(f"{other.url} does not speak HTTP/1.1; ")


@KINDS
async def test_a_call_carries_the_token_its_deadline_and_a_request_id(kind: str) -> None:
    with server(OK) as listening:
        await ask(kind, listening.url, 2.5, PredictRequest(name="buckets/b/models/m"))
        await ask(kind, listening.url, 2.5, PredictRequest(name="buckets/b/models/m"))

    lines = [seen.decode().lower().split("\r\n") for seen in listening.seen]
    ids = {line for request in lines for line in request if line.startswith("x-request-id: ")}
    for request in lines:
        assert "authorization: bearer t" in request
        assert "grpc-timeout: 2500m" in request
        assert "content-type: application/json" in request
    assert len(ids) == 2


@KINDS
async def test_every_failure_of_http_carries_the_id_of_its_request(
    kind: str, unused_tcp_port: int
) -> None:
    refusal = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nx-request-id: theirs\r\n\r\n"
    with server(b"") as broken, server(refusal) as busy, server(OK.replace(b"{}", b"no")) as odd:
        found = []
        for url in (f"http://127.0.0.1:{unused_tcp_port}", broken.url, busy.url, odd.url):
            with pytest.raises(ServiceError) as caught:
                await ask(kind, url, 3)
            found.append(caught.value)

    for error in found:
        assert error.__notes__ == [f"request id: {error.request_id}"]
    # The platform's own id counts, where its answer names one.
    assert found[2].request_id == "theirs"
    sent = broken.seen[0].decode().lower()
    assert f"x-request-id: {found[1].request_id}\r\n" in sent


def test_a_traceback_names_the_class_as_callers_import_it() -> None:
    error = errors.ModelNotFound("there is no model m")

    (shown,) = traceback.format_exception_only(error)

    assert shown == "stellwerk.client.errors.ModelNotFound: there is no model m\n"
    for cls in (ServiceError, *BY_REASON.values()):
        assert getattr(errors, cls.__name__) is cls
        assert cls.__module__ == "stellwerk.client.errors"


def _attempts(*raised: ServiceError, seconds: float = 10.0) -> tuple[int, list[float]]:
    """The attempts and the pauses of a call that fails so, one error an attempt."""
    pauses: list[float] = []
    waiting = list(raised)

    def attempt() -> None:
        raise waiting.pop(0) if len(waiting) > 1 else waiting[0]

    retrying = Retrying(sleep=pauses.append, **rules(time.monotonic() + seconds, RetryBudget()))
    with pytest.raises(type(raised[-1])):
        retrying(attempt)
    return retrying.statistics["attempt_number"], pauses


def test_the_pause_grows_and_honours_what_the_platform_asks_for() -> None:
    away = errors.Unavailable("x", retry_after_ms=0)

    attempts, (first, second) = _attempts(away)

    assert attempts == 3
    assert 0.1 <= first <= 0.2 <= second <= 0.3
    assert _attempts(errors.Unavailable("x", retry_after_ms=3000))[1] == [3, 3]


def test_a_pause_beyond_the_deadline_ends_the_call() -> None:
    assert _attempts(errors.Unavailable("x", retry_after_ms=3000), seconds=2) == (1, [])


def test_no_other_error_is_retried() -> None:
    assert _attempts(errors.InvalidInput("x")) == (1, [])


def test_retries_are_a_tenth_of_the_calls_in_the_long_run() -> None:
    budget = RetryBudget()
    allowed = 0

    for _ in range(1000):
        budget.earn()
        allowed += budget.spend()

    assert 100 <= allowed <= 111
