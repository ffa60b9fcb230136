"""Calls any public RPC for an HTTP request: transcodes in, calls the upstream, transcodes out.
Knows no RPC by name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import Message

from services.api_gateway.http import status as http_status
from services.api_gateway.http.exchange import Visit
from services.api_gateway.http.response import Answer, Stream
from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import messages as transcode
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.wire.errors import ServiceError

# The repository takes pieces of 256 KiB to 1 MiB best.
_UPLOAD_PIECE = 512 * 1024
_OCTETS = "application/octet-stream"
_NDJSON = b"application/x-ndjson"


class Rest:
    """The handler of all transcoded routes."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def __call__(self, visit: Visit) -> Answer | Stream:
        """Serves one request. Raises a ServiceError."""
        route = visit.match.route
        if route.rpc.client_streaming:
            return await self._upload(visit)
        query = transcode.query_pairs(visit.request.query)
        body = await visit.body()
        kind = visit.request.header(b"content-type")
        request = transcode.request_message(
            route, visit.match.variables, query, body, kind
        ).SerializeToString()
        if route.rpc.server_streaming:
            return await self._stream(visit, request)
        return _answer(route, await self._upstreams.unary(route.rpc_name, request))

    async def _upload(self, visit: Visit) -> Answer:
        """Sends the body on, piece by piece; path and query fill the first message."""
        route, request = visit.match.route, visit.request
        query = transcode.query_pairs(request.query)
        kind = request.header(b"content-type") or _OCTETS
        first = transcode.request_message(route, visit.match.variables, query, b"", kind)
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

        return _answer(route, await self._upstreams.client_stream(route.rpc_name, messages()))

    async def _stream(self, visit: Visit, request: bytes) -> Stream:
        """Waits for the first message, so that an early error still gets its status; then passes on
        what comes.
        """
        route = visit.match.route
        messages = self._upstreams.server_stream(route.rpc_name, request)
        first = await anext(messages, None)
        visit.request.watch()
        if not transcode.gives_raw_body(route):
            return Stream(_lines(route, first, messages), _NDJSON)
        kind = (
            transcode.response_raw(route, _parse(route, first)).content_type
            if first is not None
            else ""
        )
        return Stream(_pieces(route, first, messages), (kind or _OCTETS).encode())


def _body_of(message: Any, route: Route) -> Any:
    return message if route.body == "*" else getattr(message, route.body)


def _parse(route: Route, data: bytes) -> Message:
    message_class = message_factory.GetMessageClass(route.rpc.output_type)
    message: Message = message_class.FromString(data)
    return message


def _answer(route: Route, data: bytes) -> Answer:
    message = _parse(route, data)
    if transcode.gives_raw_body(route):
        raw = transcode.response_raw(route, message)
        return Answer(200, raw.data, (raw.content_type or _OCTETS).encode())
    return Answer(200, transcode.response_json(route, message))


async def _pieces(
    route: Route, first: bytes | None, rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    if first is not None:
        yield transcode.response_raw(route, _parse(route, first)).data
    async with aclosing(rest):
        async for message in rest:
            yield transcode.response_raw(route, _parse(route, message)).data


async def _lines(
    route: Route, first: bytes | None, rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """One JSON object a line: {"result": …} for each message and, should it fail, {"error": …} as
    the last one.
    """
    try:
        if first is not None:
            yield _line(route, first)
        async with aclosing(rest):
            async for message in rest:
                yield _line(route, message)
    except ServiceError as error:
        yield b'{"error":' + http_status.status_body(error) + b"}\n"


def _line(route: Route, data: bytes) -> bytes:
    return b'{"result":' + transcode.response_json(route, _parse(route, data)) + b"}\n"
