"""The platform's errors as a caller meets them: the classes of the one vocabulary, rebuilt from
what a peer sent.

Both transports end in `_rebuild`, so the same failure is the same exception over HTTP and gRPC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import grpc
import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

# Every class of the vocabulary is a name here, so that callers write `errors.ModelNotFound`.
from stellwerk.wire.errors import *  # noqa: F403
from stellwerk.wire.errors import (
    CODE_BY_NUMBER,
    DOMAIN,
    DeadlinePassed,
    ServiceError,
    TooLarge,
    Unavailable,
    rebuild,
)

_STATUS_KEY = "grpc-status-details-bin"
# Of an answer that did not come from the platform, such as a proxy's error page: what its status
# most likely means.
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


def unreachable(address: str) -> Unavailable:
    """Nothing answers at the address."""
    return Unavailable(
        f"nothing answers at {address}; is the platform up, and is this its address?",
        retry_after_ms=0,
        address=address,
    )


def late(address: str, seconds: float) -> DeadlinePassed:
    """No answer came in time."""
    return DeadlinePassed(
        f"no answer from {address} within {seconds:.3g} s; give a longer timeout",
        address=address,
        seconds=seconds,
    )


def _too_large(address: str) -> TooLarge:
    return TooLarge(
        f"this is more than {address} takes or gives in one message; send fewer rows at a time"
    )


def from_grpc(
    error: grpc.RpcError | grpc.aio.AioRpcError, address: str, seconds: float
) -> ServiceError:
    """The error of a call, from the rich status that came with it or, if the channel itself failed,
    from its code.
    """
    trailers: Any = error.trailing_metadata() or ()  # type: ignore[union-attr]
    status = _rich_status(trailers)
    code: grpc.StatusCode = error.code()  # type: ignore[union-attr]
    if status is not None:
        return _rebuild(code, status.message, *_details(status))
    if code is grpc.StatusCode.UNAVAILABLE:
        return unreachable(address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(address, seconds)
    if (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED
    ):  # without details it is gRPC's own limit on messages
        return _too_large(address)
    return rebuild(code, "", error.details() or f"{address} answered {code.name}")  # type: ignore[union-attr]


def from_http(
    http_status: int, headers: Mapping[str, str], body: bytes, address: str
) -> ServiceError:
    """The error in an answer's JSON, or one that stands for its status where the body is not the
    platform's.
    """
    wait = headers.get("retry-after", "")
    retry_after_ms = int(float(wait) * 1000) if wait.replace(".", "", 1).isdigit() else 0
    try:
        fields = orjson.loads(body)
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
    return _rebuild(
        code, message, str(info.get("reason", "")), metadata, retry_after_ms or _json_delay(details)
    )


def _rebuild(
    code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str], retry_after_ms: int
) -> ServiceError:
    return rebuild(code, reason, message, metadata, retry_after_ms)


def _rich_status(trailers: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in trailers:
        if key == _STATUS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _details(status: status_pb2.Status) -> tuple[str, dict[str, str], int]:
    """Reason, metadata and milliseconds to wait."""
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
