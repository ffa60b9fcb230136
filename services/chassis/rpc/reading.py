"""Reads what a call brings: its context from the metadata, and its first message."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from services.chassis import context
from services.chassis.context import CallContext
from services.chassis.telemetry import valid_traceparent
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.permissions import Rule

# Characters of the tracestate that are passed on; W3C asks for at least 512.
_MAX_TRACESTATE = 512


def read_call(
    rule: Rule, metadata: Sequence[tuple[str, Any]], grpc_context: Any, longest_seconds: float
) -> CallContext:
    """Returns the call's context and makes it the current one.

    A unary call ends at its caller's deadline, after `longest_seconds` at the latest. A stream
    stays open unless its caller bounds it.
    """
    given: dict[str, Any] = dict(metadata or ())
    if len(given) != len(metadata or ()):
        _join_repeated(given, metadata)
    call = CallContext(
        rule.method,
        _request_id(given.get(keys.REQUEST_ID, "")),
        _host(grpc_context.peer()),
        token=given.get(keys.AUTHORIZATION, ""),
    )
    if keys.TRACEPARENT in given:
        call.traceparent = valid_traceparent(given[keys.TRACEPARENT])
        call.tracestate = given.get(keys.TRACESTATE, "")[:_MAX_TRACESTATE]
    left = grpc_context.time_remaining()
    if left is not None and not rule.streaming:
        left = min(left, longest_seconds)
    elif left is None and not rule.streaming:
        left = longest_seconds
    if left is not None:
        call.deadline = time.monotonic() + left
    context.bind(call)
    return call


def _join_repeated(given: dict[str, Any], metadata: Sequence[tuple[str, Any]]) -> None:
    """Joins entries that were given several times, as HTTP joins header fields (RFC 9110, 5.3).

    So none of two tokens counts alone: they are refused, because no token holds a comma. Two
    request ids make a new one. Of two trace parents gRPC itself keeps the last.
    """
    for key in (keys.AUTHORIZATION, keys.TRACESTATE):
        values = [str(value) for name, value in metadata if name == key]
        if len(values) > 1:
            given[key] = ",".join(values)
    if sum(name == keys.REQUEST_ID for name, _ in metadata) > 1:
        del given[keys.REQUEST_ID]


def _request_id(given: str) -> str:
    """Returns the caller's request id, or a new one if it gives none that can be kept."""
    usable = 0 < len(given) <= keys.MAX_REQUEST_ID_LENGTH and given.isprintable()
    return given if usable else context.new_request_id()


def _host(peer: str) -> str:
    return peer.rsplit(":", 1)[0] if peer.startswith("ipv") else peer


class _Unreadable:
    """Stands for a message that cannot be decoded, until there is a call to refuse."""


def lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns a deserializer that marks a message it cannot decode instead of raising.

    An unreadable message is the caller's mistake; grpc.aio itself would answer INTERNAL.
    """

    def read_or_mark(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _Unreadable

    return read_or_mark


def readable(message: Any) -> Any:
    """Returns the message. Raises InvalidInput if it was marked as unreadable."""
    if message is _Unreadable:
        raise InvalidInput("the message could not be read; it is not what this method takes")
    return message


async def peek(request: Any, *, names_resource: bool) -> tuple[Any, Any]:
    """Returns the message that names the resource, and the request for the handler.

    Of a stream that is the first message if `names_resource`, else None; the request still holds
    all messages.
    """
    if not hasattr(request, "__aiter__"):
        return readable(request), request
    if not names_resource:
        return None, request
    iterator = request.__aiter__()
    first = readable(await anext(iterator, None))

    async def whole() -> AsyncGenerator[Any]:
        if first is not None:
            yield first
            async for message in iterator:
                yield readable(message)

    return first, whole()
