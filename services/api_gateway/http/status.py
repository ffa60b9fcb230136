"""gRPC status codes as HTTP statuses, in one table, and errors as JSON bodies. No other place knows
either.
"""

from __future__ import annotations

import math

import grpc
import orjson

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
# Where HTTP has a word of its own for what gRPC counts among others.
HTTP_STATUS_OF_REASON: dict[str, int] = {
    TooLarge.reason: 413,
    MethodNotAllowed.reason: 405,
    UnsupportedEncoding.reason: 415,
}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"

Headers = list[tuple[bytes, bytes]]


def status_of(error: ServiceError) -> int:
    """The HTTP status of an error."""
    return HTTP_STATUS_OF_REASON.get(error.reason) or HTTP_STATUS[error.code]


def headers_of(error: ServiceError) -> Headers:
    """What HTTP asks for beside the status: how to authenticate, which methods exist, when to come
    back.
    """
    status = status_of(error)
    headers: Headers = []
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="stellwerk"'))
    if status == 405:
        headers.append((b"allow", error.metadata.get("allow", "").encode()))
    if status == 415:
        headers.append((b"accept-encoding", b"gzip, deflate"))
    if status in (429, 503):
        # Whole seconds, at least one: zero would invite a storm.
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after / 1000))).encode()))
    return headers


def status_body(error: ServiceError) -> bytes:
    """The error as google.rpc.Status in JSON (AIP-193)."""
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


def inference_body(error: ServiceError) -> bytes:
    """The error as the Open Inference Protocol has it."""
    return orjson.dumps({"error": error.message})
