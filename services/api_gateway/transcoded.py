"""Serves any public RPC over HTTP: reads the request message, calls the upstream, writes the
response. Knows no RPC by name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import Message

from services.api_gateway.http.exchange import HttpExchange
from services.api_gateway.http.response import HttpResponse, StreamedResponse
from services.api_gateway.http.status import status_body
from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import messages as transcoding
from services.api_gateway.transcoding.parameters import query_pairs
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.wire.errors import ServiceError

# Bytes of an upload in one message: the repository stores pieces of 256 KiB to 1 MiB fastest.
_UPLOAD_PIECE = 512 * 1024
_OCTETS = "application/octet-stream"
_NDJSON = b"application/x-ndjson"


class TranscodedHandler:
    """The handler of each route that has none of its own."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def __call__(self, exchange: HttpExchange) -> HttpResponse | StreamedResponse:
        """Serves one request. Raises a ServiceError."""
        route = exchange.match.route
        if route.rpc.client_streaming:
            return await self._upload(exchange)
        query = query_pairs(exchange.request.head.query)
        body = await exchange.body()
        kind = exchange.request.head.header(b"content-type")
        request = transcoding.request_message(
            route, exchange.match.variables, query, body, kind
        ).SerializeToString()
        if route.rpc.server_streaming:
            return await self._stream(exchange, request)
        return _response(route, await self._upstreams.unary(route.rpc_name, request))

    async def _upload(self, exchange: HttpExchange) -> HttpResponse:
        """Passes the body on, piece by piece; path and query fill the first message."""
        route, request = exchange.match.route, exchange.request
        query = query_pairs(request.head.query)
        kind = request.head.header(b"content-type") or _OCTETS
        first = transcoding.request_message(route, exchange.match.variables, query, b"", kind)
        message_class: Any = message_factory.GetMessageClass(route.rpc.input_type)

        async def messages() -> AsyncIterator[bytes]:
            message: Any = first
            async for piece in request.chunks(_UPLOAD_PIECE):
                _body_of(message, route).data = piece
                yield message.SerializeToString()
                message = message_class()
            if message is first:
                yield message.SerializeToString()
            request.watch()

        return _response(route, await self._upstreams.client_stream(route.rpc_name, messages()))

    async def _stream(self, exchange: HttpExchange, request: bytes) -> StreamedResponse:
        """Returns the stream of response messages, as JSON lines or raw bytes.

        Waits for the first message, so that an error before it gets its own HTTP status.
        """
        route = exchange.match.route
        messages = self._upstreams.server_stream(route.rpc_name, request)
        first = await anext(messages, None)
        exchange.request.watch()
        if not transcoding.gives_raw_body(route):
            return StreamedResponse(_lines(route, first, messages), _NDJSON)
        kind = (
            transcoding.response_raw(route, _parse(route, first)).content_type
            if first is not None
            else ""
        )
        return StreamedResponse(_pieces(route, first, messages), (kind or _OCTETS).encode())


def _body_of(message: Any, route: Route) -> Any:
    return message if route.body == "*" else getattr(message, route.body)


def _parse(route: Route, data: bytes) -> Message:
    message_class = message_factory.GetMessageClass(route.rpc.output_type)
    message: Message = message_class.FromString(data)
    return message


def _response(route: Route, data: bytes) -> HttpResponse:
    message = _parse(route, data)
    if transcoding.gives_raw_body(route):
        raw = transcoding.response_raw(route, message)
        return HttpResponse(200, raw.data, (raw.content_type or _OCTETS).encode())
    return HttpResponse(200, transcoding.response_json(route, message))


async def _pieces(
    route: Route, first: bytes | None, rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    if first is not None:
        yield transcoding.response_raw(route, _parse(route, first)).data
    async with aclosing(rest):
        async for message in rest:
            yield transcoding.response_raw(route, _parse(route, message)).data


async def _lines(
    route: Route, first: bytes | None, rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yields a JSON line for each message, {"result": …}, and {"error": …} if the stream fails."""
    try:
        if first is not None:
            yield _line(route, first)
        async with aclosing(rest):
            async for message in rest:
                yield _line(route, message)
    except ServiceError as error:
        yield b'{"error":' + status_body(error) + b"}\n"


def _line(route: Route, data: bytes) -> bytes:
    return b'{"result":' + transcoding.response_json(route, _parse(route, data)) + b"}\n"
