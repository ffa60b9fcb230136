"""The platform's errors as a caller meets them, the same classes over HTTP and gRPC.

An error has `message` (a sentence that says what to do), `reason`, `metadata` (the values in the
message), `retry_after` (milliseconds, 0 for none) and `request_id`. The request id is a note of the
exception too, so a traceback shows it; it is "" for what the SDK refuses before it sends anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

# Every class of the vocabulary is a name here, so that callers write `errors.ModelNotFound`.
from stellwerk.wire.errors import *  # noqa: F403
from stellwerk.wire.errors import (
    BY_REASON,
    CODE_BY_NUMBER,
    DOMAIN,
    DeadlinePassed,
    ServiceError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    rebuild,
)

# A traceback names the module that callers import.
for _cls in (ServiceError, *BY_REASON.values()):
    _cls.__module__ = __name__

_E = TypeVar("_E", bound=ServiceError)
_STATUS_KEY = "grpc-status-details-bin"
# Likely meaning of an HTTP status whose body is not the platform's, such as a proxy's page.
_CODE_BY_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def identified(error: _E, request_id: str) -> _E:
    """Returns the error with the id of the request that failed, as attribute and as note."""
    if request_id:
        error.request_id = request_id
        error.add_note(f"request id: {request_id}")
    return error


def unreachable(address: str) -> Unavailable:
    """Returns the error for an address at which nothing answers."""
    return Unavailable(
        f"nothing answers at {address}; is the platform up, and is this its address?",
        retry_after_ms=0,
        address=address,
    )


def _no_grpc(address: str) -> Unavailable:
    """Returns the error for an address that answers in another protocol than gRPC."""
    return Unavailable(
        f"{address} does not speak gRPC; if it is the port of the REST API, give http://{address}",
        retry_after_ms=0,
        address=address,
    )


def late(address: str, seconds: float) -> DeadlinePassed:
    """Returns the error for an answer that did not come within `seconds`."""
    return DeadlinePassed(
        f"no answer from {address} within {seconds:.3g} s; give a longer timeout",
        address=address,
        seconds=seconds,
    )


def unauthenticated(error: Unauthenticated, source: str, local: bool) -> Unauthenticated:
    """Returns the platform's refusal of a caller as the user of a client can act on it.

    `source` is where the client found the token it sent, "" if it sent none; `local` tells whether
    the platform runs on this machine.
    """
    if source:
        # What the platform says after the colon is how to send a token, which the client did.
        reason = error.message.partition(": send it as ")[0]
        told = f"the platform refuses the token from {source}: {reason}"
    else:
        told = "no token was given; give token=, STELLWERK_TOKEN or STELLWERK_TOKEN_FILE"
        if local:
            told += "; without url= the platform on this machine is found together with its token"
    named = Unauthenticated(told, retry_after_ms=error.retry_after)
    named.metadata = error.metadata
    return named


def _too_large(address: str) -> TooLarge:
    return TooLarge(
        f"this is more than {address} takes or gives in one message; send fewer rows at a time"
    )


def from_grpc(
    error: grpc.RpcError | grpc.aio.AioRpcError, address: str, seconds: float
) -> ServiceError:
    """Returns the error of a call: the rich status that came with it or, if the channel itself
    failed, what its code means.
    """
    trailers: Any = error.trailing_metadata() or ()  # type: ignore[union-attr]
    status = _rich_status(trailers)
    code: grpc.StatusCode = error.code()  # type: ignore[union-attr]
    if status is not None:
        reason, metadata, retry_after_ms = _details(status)
        return rebuild(code, reason, status.message, metadata, retry_after_ms)
    if code is grpc.StatusCode.UNAVAILABLE:
        if "Failed parsing HTTP/2" in (error.details() or ""):  # type: ignore[union-attr]
            return _no_grpc(address)
        return unreachable(address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(address, seconds)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # The platform's own refusals have details; this one is gRPC's limit on messages.
        return _too_large(address)
    return rebuild(code, "", error.details() or f"{address} answered {code.name}")  # type: ignore[union-attr]


def from_http(
    http_status: int, headers: Mapping[str, str], body: bytes, address: str
) -> ServiceError:
    """Returns the error in a JSON body, or the meaning of the status if the body is not the
    platform's.
    """
    wait = headers.get("retry-after", "")
    retry_after_ms = int(float(wait) * 1000) if wait.replace(".", "", 1).isdigit() else 0
    try:
        fields = json.loads(body)
        code = CODE_BY_NUMBER[fields["code"]]
        message, details = str(fields["message"]), list(fields.get("details", []))
    except (ValueError, KeyError, TypeError):
        if http_status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _too_large(address)
        code = _CODE_BY_HTTP.get(http_status, grpc.StatusCode.INTERNAL)
        return rebuild(code, "", f"{address} answered HTTP {http_status}", {}, retry_after_ms)
    info = next(
        (
            d
            for d in details
            if isinstance(d, dict) and str(d.get("@type", "")).endswith("ErrorInfo")
        ),
        {},
    )
    metadata = {str(key): str(value) for key, value in (info.get("metadata") or {}).items()}
    return rebuild(
        code, str(info.get("reason", "")), message, metadata, retry_after_ms or _json_delay(details)
    )


def _rich_status(trailers: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in trailers:
        if key == _STATUS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _details(status: status_pb2.Status) -> tuple[str, dict[str, str], int]:
    """Returns reason, metadata and the milliseconds to wait."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
    reason = info.reason if info.domain in ("", DOMAIN) else ""
    return reason, dict(info.metadata), retry.retry_delay.ToMilliseconds()


def _json_delay(details: list[object]) -> int:
    for detail in details:
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("RetryInfo"):
            delay = Duration()
            try:
                delay.FromJsonString(str(detail.get("retryDelay", "0s")))
            except ValueError:
                return 0
            return delay.ToMilliseconds()
    return 0
