"""The pieces of an artifact as they come in over gRPC. Ends only if the client ended the stream;
raises if it broke.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import Cancelled, InvalidInput

# What is read of a stream after it is decided, in bytes and seconds.
_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_SECONDS = 2.0


async def opened(
    messages: AsyncIterator[pb.UploadArtifactRequest], context: Any
) -> tuple[str, AsyncIterator[bytes]]:
    """The upload that the first message names, and the pieces of all. What later messages name is
    not looked at.
    """
    first = await anext(messages, None)
    if first is None:
        raise InvalidInput("the first message names the upload", field="name")
    return first.name, _pieces(first.artifact.data, messages, context)


async def _pieces(
    first: bytes, messages: AsyncIterator[pb.UploadArtifactRequest], context: Any
) -> AsyncIterator[bytes]:
    yield first
    async for message in messages:
        yield message.artifact.data
    # grpc.aio reports a broken stream as its end and cancels the handler only some moments later.
    # Sending tells the two apart at once: it fails on a stream that is no more.
    try:
        await context.send_initial_metadata(())
    except Exception as exc:
        raise Cancelled("the upload broke off; open a new one and send it again") from exc


async def linger(pieces: AsyncIterator[bytes]) -> None:
    """Reads on for a moment after the answer is known and before it is given.

    A grpc.aio client that cannot send a message because the answer came first may report that, not
    the answer.
    """
    size = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for piece in pieces:
                size += len(piece)
                if size > _LINGER_BYTES:
                    return
    except (TimeoutError, Cancelled):
        return
