"""Turns ServiceErrors into gRPC statuses with ErrorInfo and RetryInfo (AIP-193), and back."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from stellwerk.wire import errors

DETAILS = "grpc-status-details-bin"
# Characters of a message in the trailers. gRPC bounds all metadata of a call to 16 KiB together.
_MAX_MESSAGE = 2048


def details(error: errors.ServiceError) -> bytes:
    """Returns the error as a serialised google.rpc.Status."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message[:_MAX_MESSAGE])
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=errors.DOMAIN,
        metadata={key: value[:256] for key, value in error.metadata.items()},
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    status.details.append(packed)
    if error.retry_after:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after)
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.append(packed)
    data: bytes = status.SerializeToString()
    return data


def parse(
    code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]] | None
) -> errors.ServiceError | None:
    """Returns the error in these trailers, None if they hold no ErrorInfo of the platform."""
    for key, value in trailers or ():
        if key != DETAILS or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        for detail in status.details:
            detail.Unpack(info) or detail.Unpack(retry)
        if info.reason and info.domain == errors.DOMAIN:
            delay = retry.retry_delay.ToMilliseconds()
            return errors.rebuild(
                code, info.reason, status.message or message, dict(info.metadata), delay
            )
    return None


def from_rpc(error: grpc.aio.AioRpcError, peer: str) -> errors.ServiceError:
    """Returns the ServiceError for a failed call to `peer`.

    gRPC's own words about connections never reach a caller.
    """
    code = error.code()
    known = parse(code, error.details() or "", error.trailing_metadata())  # type: ignore[arg-type]
    if known is not None:
        return known
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(
            f"the {peer} does not answer; try again in a moment", service=peer
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlinePassed(f"the {peer} did not answer in time", service=peer)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.TooLarge(f"a message to or from the {peer} is too large", service=peer)
    return errors.rebuild(code, "", f"the {peer} answered {code.name}")


def as_service_error(exc: BaseException, request_id: str) -> errors.ServiceError:
    """Returns the error that a caller is told for an exception: a ServiceError as it is, a
    TimeoutError as DeadlinePassed, anything else as Internal without detail.

    A ServiceError loses its traceback and its cause: whoever keeps it would keep the frames that
    it passed, and with them the request, until the collector of cycles comes.
    """
    if isinstance(exc, errors.ServiceError):
        exc.__traceback__ = exc.__cause__ = exc.__context__ = None
        return exc
    if isinstance(exc, TimeoutError):
        return errors.DeadlinePassed("the call did not finish before its deadline")
    return errors.Internal(
        f"internal error; the log tells more under request id {request_id}", request_id=request_id
    )
