"""The one error vocabulary. A class is a pair of gRPC status code and reason; it crosses gRPC and
AMQP intact.

Code raises these; one server interceptor turns them into a status with ErrorInfo, one client
interceptor back into the same class, and a broker reply carries the same pair. A reason never
changes its meaning.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

from stellwerk.job.v1 import work_pb2

DOMAIN = "stellwerk"


class ServiceError(Exception):
    """An error with a sentence for the caller that says what to do.

    Values within the sentence also stand in `metadata`; `retry_after_ms` is the time after which a
    retry makes sense, 0 if none does.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    retry_after_ms: ClassVar[int] = 0
    # The id of the request that failed, under which the platform's logs tell more; the SDK sets it.
    request_id: str = ""
    # Whether a peer raised it, and not this process.
    from_peer: bool = False

    def __init__(
        self, message: str, *, retry_after_ms: int | None = None, **metadata: object
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_after = self.retry_after_ms if retry_after_ms is None else retry_after_ms


class InvalidInput(ServiceError):
    """The request breaks a rule; sending it again unchanged cannot help."""

    code, reason = grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT"


class Unauthenticated(ServiceError):
    """The caller presents no valid credential."""

    code, reason = grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"


class NotPermitted(ServiceError):
    """The caller's roles do not permit the call."""

    code, reason = grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"


class NotFound(ServiceError):
    """The resource does not exist."""

    code, reason = grpc.StatusCode.NOT_FOUND, "NOT_FOUND"


class BucketNotFound(NotFound):
    """The bucket does not exist."""

    reason = "BUCKET_NOT_FOUND"


class ModelNotFound(NotFound):
    """The model does not exist."""

    reason = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    """The model has no such version."""

    reason = "VERSION_NOT_FOUND"


class AliasNotFound(NotFound):
    """The model has no such alias."""

    reason = "ALIAS_NOT_FOUND"


class UploadNotFound(NotFound):
    """The upload does not exist or has expired."""

    reason = "UPLOAD_NOT_FOUND"


class PrincipalNotFound(NotFound):
    """The principal does not exist."""

    reason = "PRINCIPAL_NOT_FOUND"


class KeyNotFound(NotFound):
    """The API key does not exist."""

    reason = "KEY_NOT_FOUND"


class RuntimeNotFound(NotFound):
    """No runtime of this name is attached."""

    reason = "RUNTIME_NOT_FOUND"


class RouteNotFound(NotFound):
    """No HTTP route has this path."""

    reason = "ROUTE_NOT_FOUND"


class AlreadyExists(ServiceError):
    """A resource of this name exists."""

    code, reason = grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"


class Conflict(ServiceError):
    """A stale etag or a lost claim: re-read, then try again."""

    code, reason = grpc.StatusCode.ABORTED, "CONFLICT"


class NotReady(ServiceError):
    """The state does not allow the call yet; it can succeed once the state has changed."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "NOT_READY"


class RequirementUnmet(ServiceError):
    """No runtime of the fleet has what the model or the call requires."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "REQUIREMENT_UNMET"


class ModelFailed(ServiceError):
    """The model's own code raised while it was called or loaded."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FAILED"


class UnsafeFormat(ServiceError):
    """The artifact's format can run code and is not allowed here."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "UNSAFE_FORMAT"


class Overloaded(ServiceError):
    """A queue or a limit is full; try again later."""

    code, reason, retry_after_ms = grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 1000


class TooLarge(ServiceError):
    """A message or body over the configured limit. HTTP answers 413 here, 429 for its siblings."""

    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"


class Unavailable(ServiceError):
    """A service that this one needs does not answer."""

    code, reason, retry_after_ms = grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 1000


class NoRuntimeAvailable(Unavailable):
    """No attached runtime can serve the model now."""

    reason = "NO_RUNTIME_AVAILABLE"


class BrokerDown(Unavailable):
    """The broker does not answer."""

    reason = "BROKER_DOWN"


class Unroutable(Unavailable):
    """The broker took back a message because nothing would have received it."""

    reason = "UNROUTABLE"


class DeadlinePassed(ServiceError):
    """The call did not finish within its caller's time."""

    code, reason = grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"


class Cancelled(ServiceError):
    """The caller ended the call."""

    code, reason = grpc.StatusCode.CANCELLED, "CANCELLED"


class Corrupt(ServiceError):
    """Stored bytes do not have the digest they should have."""

    code, reason = grpc.StatusCode.DATA_LOSS, "CORRUPT"


class NotImplementedHere(ServiceError):
    """The platform does not have this function."""

    code, reason = grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"


class MethodNotAllowed(NotImplementedHere):
    """The path does not take this HTTP method. HTTP answers 405 here, 501 for its siblings."""

    reason = "METHOD_NOT_ALLOWED"


class UnsupportedEncoding(InvalidInput):
    """A body in a content encoding that nobody here decodes. HTTP answers 415 here."""

    reason = "UNSUPPORTED_ENCODING"


class Internal(ServiceError):
    """An unforeseen failure. The caller learns the request id, the log holds the traceback."""


def _all_classes() -> list[type[ServiceError]]:
    found, waiting = [], [ServiceError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting += cls.__subclasses__()
    return found


BY_REASON: dict[str, type[ServiceError]] = {
    cls.reason: cls for cls in _all_classes() if cls is not ServiceError
}
# The general class of each status code, for peers that send no reason: the first one above.
BY_CODE: dict[grpc.StatusCode, type[ServiceError]] = {}
for _cls in ServiceError.__subclasses__():
    BY_CODE.setdefault(_cls.code, _cls)
BY_CODE[grpc.StatusCode.OUT_OF_RANGE] = InvalidInput
CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def rebuild(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    metadata: dict[str, str] | None = None,
    retry_after_ms: int = 0,
) -> ServiceError:
    """Returns the error that a peer raised, as the class it raised.

    An unknown reason becomes the general class of its code.
    """
    cls = BY_REASON.get(reason)
    if cls is None or cls.code is not code:
        cls = BY_CODE.get(code, Internal)
    error = cls(message, retry_after_ms=retry_after_ms)
    error.metadata = dict(metadata or {})
    error.from_peer = True
    return error


def to_work_error(error: ServiceError) -> work_pb2.WorkError:
    """Returns the error as a broker reply carries it."""
    return work_pb2.WorkError(
        code=error.code.value[0],
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        retry_after_ms=error.retry_after,
    )


def from_work_error(error: work_pb2.WorkError) -> ServiceError:
    """Returns the error that a broker reply carries."""
    code = CODE_BY_NUMBER.get(error.code, grpc.StatusCode.INTERNAL)
    return rebuild(code, error.reason, error.message, dict(error.metadata), error.retry_after_ms)
