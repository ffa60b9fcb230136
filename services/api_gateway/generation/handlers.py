"""Serves the generate extension over REST, and inference as a stream of server-sent events."""

from __future__ import annotations

import time
from contextlib import aclosing

from services.api_gateway.generation import text_generate
from services.api_gateway.generation.events import event_stream
from services.api_gateway.http.exchange import Handler, HttpExchange
from services.api_gateway.http.response import HttpResponse, StreamedResponse
from services.api_gateway.open_inference.handlers import ModelCaller, model_of, read_request
from services.api_gateway.open_inference.infer_response import write_part
from services.api_gateway.open_inference.metadata_cache import MetadataCache
from services.api_gateway.upstream.replies import ModelReply
from services.chassis.context import CallContext
from stellwerk.wire.errors import NotImplementedHere
from stellwerk.wire.open_inference import InferRequest


class GenerationHandlers:
    """Handlers of the routes whose replies are text or come in parts."""

    def __init__(self, calls: ModelCaller, metadata: MetadataCache) -> None:
        self._calls = calls
        self._metadata = metadata

    def handlers(self) -> dict[str, Handler]:
        """Returns the handlers by the last segment of the route's path."""
        return {
            "generate": self._generate,
            "generate_stream": self._generate_stream,
            "infer_stream": self._infer_stream,
        }

    async def _generate(self, exchange: HttpExchange) -> HttpResponse:
        """Calls the model as a stream, because only its replies show whether there is just one."""
        request = await self._read(exchange)
        found: list[ModelReply] = []
        async with aclosing(self._calls.stream(request, _bounded(exchange))) as replies:
            async for reply in replies:
                if reply.outputs or (reply.final and not found):
                    found.append(reply)
                if len(found) > 1:
                    raise NotImplementedHere(
                        "the model gives several answers to one request; call generate_stream"
                    )
        return HttpResponse(200, text_generate.write(request, found[0]))

    async def _generate_stream(self, exchange: HttpExchange) -> StreamedResponse:
        request = await self._read(exchange)
        replies = self._calls.stream(request, _bounded(exchange))
        return await event_stream(request, replies, text_generate.write)

    async def _infer_stream(self, exchange: HttpExchange) -> StreamedResponse:
        request, _ = await read_request(exchange, self._metadata)
        replies = self._calls.stream(request, _bounded(exchange))
        return await event_stream(request, replies, write_part)

    async def _read(self, exchange: HttpExchange) -> InferRequest:
        model, version = model_of(exchange)
        body = await exchange.body()
        metadata = await self._metadata.get(model, version, exchange.call)
        return text_generate.read(body, model, version, metadata)


def _bounded(exchange: HttpExchange) -> CallContext:
    """Returns the call with the deadline of a model request, not the later one of a stream."""
    call = exchange.call
    latest = time.monotonic() + exchange.settings.max_deadline_seconds
    call.deadline = latest if call.deadline is None else min(call.deadline, latest)
    return call
