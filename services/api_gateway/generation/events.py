"""Sends a model's replies as server-sent events: one for each reply, and one for an error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from services.api_gateway.http.response import StreamedResponse
from services.api_gateway.open_inference.infer_response import write_error
from services.api_gateway.upstream.replies import ModelReply
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.open_inference import InferRequest

_EVENTS = b"text/event-stream; charset=utf-8"


async def event_stream(
    request: InferRequest,
    replies: AsyncGenerator[ModelReply],
    write: Callable[[InferRequest, ModelReply], bytes],
) -> StreamedResponse:
    """Returns the stream of events; `write` returns the data of a reply's event.

    Waits for the first reply, so that an error before it gets its own HTTP status.
    """
    first = await anext(replies)
    return StreamedResponse(_events(request, first, replies, write), _EVENTS)


async def _events(
    request: InferRequest,
    first: ModelReply,
    rest: AsyncGenerator[ModelReply],
    write: Callable[[InferRequest, ModelReply], bytes],
) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        try:
            if _is_sent(request, first):
                yield b"data: " + write(request, first) + b"\n\n"
            async for reply in rest:
                if _is_sent(request, reply):
                    yield b"data: " + write(request, reply) + b"\n\n"
        except ServiceError as error:
            yield b"data: " + write_error(error) + b"\n\n"


def _is_sent(request: InferRequest, reply: ModelReply) -> bool:
    """Returns whether the caller gets the reply: a final one without outputs only if it asked."""
    return bool(reply.outputs) or request.empty_final or not reply.final
