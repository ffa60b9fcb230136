"""Turns errors into HTTP: the one table from gRPC status codes to HTTP statuses, headers, body."""

from __future__ import annotations

import math

import grpc
import orjson

from services.api_gateway.http.response import Headers
from stellwerk.wire.errors import (
    DOMAIN,
    MethodNotAllowed,
    ServiceError,
    TooLarge,
    UnsupportedEncoding,
)

HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
# HTTP statuses by error reason, where HTTP distinguishes what gRPC gives one status code.
HTTP_STATUS_OF_REASON: dict[str, int] = {
    TooLarge.reason: 413,
    MethodNotAllowed.reason: 405,
    UnsupportedEncoding.reason: 415,
}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def status_of(error: ServiceError) -> int:
    """Returns the HTTP status of an error."""
    return HTTP_STATUS_OF_REASON.get(error.reason) or HTTP_STATUS[error.code]


def error_headers(error: ServiceError) -> Headers:
    """Returns the headers that HTTP asks for beside an error's status, such as Retry-After."""
    status = status_of(error)
    headers: Headers = []
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="stellwerk"'))
    if status == 405:
        headers.append((b"allow", error.metadata.get("allow", "").encode()))
    if status == 415:
        headers.append((b"accept-encoding", b"gzip, deflate"))
    if status in (429, 503):
        # Whole seconds, at least one: with zero all refused callers would come back at once.
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after / 1000))).encode()))
    return headers


def status_body(error: ServiceError) -> bytes:
    """Returns the error as google.rpc.Status in JSON (AIP-193)."""
    info: dict[str, object] = {
        "@type": _ERROR_INFO,
        "reason": error.reason,
        "domain": DOMAIN,
        "metadata": error.metadata,
    }
    details: list[dict[str, object]] = [info]
    if error.retry_after:
        details.append({"@type": _RETRY_INFO, "retryDelay": f"{error.retry_after / 1000:g}s"})
    return orjson.dumps(
        {
            "code": error.code.value[0],
            "message": error.message,
            "status": error.code.name,
            "details": details,
        }
    )
