"""Errors as HTTP: one row for each code, the right headers, and bodies that say what errors say."""

from __future__ import annotations

import grpc
import orjson

from services.api_gateway.http import status as http_status
from services.api_gateway.open_inference.infer_response import write_error
from stellwerk.wire import errors


def test_every_code_and_every_reason_has_a_status() -> None:
    assert set(http_status.HTTP_STATUS) == set(grpc.StatusCode)
    for reason, cls in errors.BY_REASON.items():
        status = http_status.status_of(cls("x"))
        assert 400 <= status <= 504, reason


def test_what_http_has_a_word_of_its_own_for() -> None:
    assert http_status.status_of(errors.TooLarge("x")) == 413
    assert http_status.status_of(errors.Overloaded("x")) == 429
    assert http_status.status_of(errors.MethodNotAllowed("x")) == 405
    assert http_status.status_of(errors.NotImplementedHere("x")) == 501
    assert http_status.status_of(errors.UnsupportedEncoding("x")) == 415


def test_headers_say_what_to_do_next() -> None:
    assert http_status.error_headers(errors.Unauthenticated("x"))[0][0] == b"www-authenticate"
    assert http_status.error_headers(errors.Overloaded("x", retry_after_ms=1500)) == [
        (b"retry-after", b"2")
    ]
    assert http_status.error_headers(errors.Unavailable("x", retry_after_ms=0)) == [
        (b"retry-after", b"1")
    ]
    assert http_status.error_headers(errors.MethodNotAllowed("x", allow="GET")) == [
        (b"allow", b"GET")
    ]
    assert http_status.error_headers(errors.NotFound("x")) == []


def test_a_body_is_a_status_with_error_info() -> None:
    body = orjson.loads(http_status.status_body(errors.ModelNotFound("no such model", model="m")))

    assert body == {
        "code": 5,
        "message": "no such model",
        "status": "NOT_FOUND",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "MODEL_NOT_FOUND",
                "domain": "stellwerk",
                "metadata": {"model": "m"},
            }
        ],
    }
    assert orjson.loads(write_error(errors.NotFound("x"))) == {"error": "x"}
    retry = orjson.loads(http_status.status_body(errors.Overloaded("x", retry_after_ms=1500)))[
        "details"
    ][1]
    assert retry["retryDelay"] == "1.5s"
