"""Messages that cannot be read are their sender's mistake; grpc.aio itself would call that an error
of ours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from stellwerk.wire.errors import InvalidInput


class _Unreadable:
    """Stands for a message that is none, until there is a call to be ended for it."""


def lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that marks what it cannot read instead of raising."""

    def read_or_mark(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _Unreadable

    return read_or_mark


def readable(message: Any) -> Any:
    """The message. Raises InvalidInput for one that was marked."""
    if message is _Unreadable:
        raise InvalidInput("the message could not be read; it is not what this method takes")
    return message


async def peek(request: Any, *, names_resource: bool) -> tuple[Any, Any]:
    """The message that names the resource, None where no message of a stream does, and what the
    handler is to take.
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
