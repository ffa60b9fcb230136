"""Errors over both transports become the same class; what is no error of the platform's becomes a
fitting one.
"""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from google.protobuf import json_format

from stellwerk.client import errors
from stellwerk.client.session.retry import RetryBudget, pause_before_retry
from stellwerk.client.transport.http import HttpTransport
from stellwerk.client.transport.port import Target
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


def transport(handler: Any) -> HttpTransport:
    return HttpTransport(Target(ADDRESS, "t"), httpx.MockTransport(handler))


@pytest.mark.parametrize(
    ("raised", "cls", "sentence"),
    [
        (
            httpx.ConnectError("refused"),
            errors.Unavailable,
            "nothing answers at http://example.test",
        ),
        (httpx.ConnectTimeout("x"), errors.Unavailable, "nothing answers at"),
        (httpx.ReadTimeout("x"), errors.DeadlinePassed, "within 3 s"),
        (httpx.RemoteProtocolError("x"), errors.Unavailable, "broke off"),
        (
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] x"),
            errors.Unavailable,
            "certificate",
        ),
    ],
)
def test_failures_of_the_connection_are_sentences(
    raised: Exception, cls: Any, sentence: str
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise raised

    with pytest.raises(cls, match=sentence):
        transport(fail).call(ListRuntimesRequest(), 3)


def test_a_call_carries_the_token_and_its_deadline() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    transport(answer).call(PredictRequest(name="buckets/b/models/m"), 2.5)

    (request,) = seen
    assert request.headers["authorization"] == "Bearer t"
    assert request.headers["grpc-timeout"] == "2500m"
    assert request.headers["content-type"] == "application/json"


def test_the_pause_grows_and_honours_what_the_platform_asks_for() -> None:
    away = errors.Unavailable("x", retry_after_ms=0)

    assert pause_before_retry(away, 1, 10, 0.5) == pytest.approx(0.1)
    assert pause_before_retry(away, 2, 10, 0.5) == pytest.approx(0.2)
    assert pause_before_retry(away, 3, 10, 0.5) is None
    assert pause_before_retry(errors.Unavailable("x", retry_after_ms=3000), 1, 10, 0.5) == 3
    assert pause_before_retry(errors.Unavailable("x", retry_after_ms=3000), 1, 2, 0.5) is None
    assert pause_before_retry(errors.InvalidInput("x"), 1, 10, 0.5) is None


def test_retries_are_a_tenth_of_the_calls_in_the_long_run() -> None:
    budget = RetryBudget()
    allowed = 0

    for _ in range(1000):
        budget.earn()
        allowed += budget.spend()

    assert 100 <= allowed <= 111
