"""The error vocabulary and its HTTP table; each violation planted once."""

from __future__ import annotations

import grpc
import pytest

from services.api_gateway.http import status as http_status
from stellwerk.wire.errors import ServiceError
from tests.architecture.checks import vocabulary

OURS = [
    error
    for error in vocabulary.classes()
    if error.__module__.startswith(("services.", "stellwerk."))
]


class _Nameless(ServiceError):
    code, reason = grpc.StatusCode.NOT_FOUND, ""


class _Double(ServiceError):
    code, reason = grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"


class _Fine(ServiceError):
    code, reason = grpc.StatusCode.OK, "FINE"


def test_every_error_has_a_code_and_a_reason_of_its_own() -> None:
    assert OURS
    assert vocabulary.reasons(OURS) == []


def test_every_code_has_an_http_status() -> None:
    assert vocabulary.http_rows(OURS, http_status.HTTP_STATUS) == []


@pytest.mark.parametrize(
    ("planted", "finding"),
    [
        (_Nameless, "_Nameless: '' is no reason in UPPER_SNAKE_CASE"),
        (_Double, "_Double: the reason MODEL_NOT_FOUND belongs to ModelNotFound"),
        (_Fine, "_Fine: has no error code"),
    ],
)
def test_a_planted_error_class_is_found(planted: type[ServiceError], finding: str) -> None:
    assert vocabulary.reasons([*OURS, planted]) == [finding]


def test_a_missing_row_is_found() -> None:
    rows = {code: 500 for code in grpc.StatusCode if code is not grpc.StatusCode.ABORTED}

    assert vocabulary.http_rows(OURS, rows) == ["ABORTED: has no HTTP error status"]
