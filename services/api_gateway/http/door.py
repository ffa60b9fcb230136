"""The HTTP door, a raw ASGI application: request id → route → deadline → authenticate → handler →
response or typed error.

The door establishes who calls; the services behind decide who may do what. No exception gets out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.access_log import AccessLog
from services.api_gateway.http.content_encoding import response_encoding
from services.api_gateway.http.exchange import (
    MAX_HEADERS,
    Handler,
    HttpExchange,
    HttpRequest,
    begin_exchange,
)
from services.api_gateway.http.response import (
    Document,
    Headers,
    HttpResponse,
    Send,
    StreamedResponse,
    cors_headers,
    encode,
    preflight_headers,
    send_stream,
    send_with_pause,
)
from services.api_gateway.http.status import headers_of, status_of
from services.api_gateway.routing.routes import Route, RouteTable
from services.chassis import rpc_status
from services.chassis.context import CallContext, Principal
from stellwerk.wire.errors import (
    Cancelled,
    Internal,
    InvalidInput,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
)
from stellwerk.wire.permissions import ANONYMOUS

# Bytes of an unwanted body that are read, at least, before its connection is closed: as many as
# the largest body that the default settings allow.
_DRAIN_BYTES = 64 * 1024 * 1024
# HTTP's common status for a caller that went away before its response, for the log alone.
_CLIENT_GONE = 499


class HttpDoor:
    """The ASGI application."""

    def __init__(
        self,
        *,
        table: RouteTable,
        handlers: Mapping[Route, Handler],
        documents: Mapping[bytes, Document],
        authenticate: Callable[[str], Awaitable[tuple[str, Principal]]],
        write_error: Callable[[bytes, ServiceError], bytes],
        begin_span: Callable[[str, CallContext], Any] | None,
        access_log: AccessLog,
        settings: GatewaySettings,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Takes the routes and a handler for each, and the documents by path, open to everyone.

        `authenticate` returns the token and the principal of an Authorization value or raises
        Unauthenticated. `write_error` returns the body for an error at a raw path. `begin_span`
        begins the request's span, which becomes the parent of the call behind; None traces nothing.
        """
        self._table = table
        self._handlers = handlers
        self._documents = documents
        self._authenticate = authenticate
        self._write_error = write_error
        self._begin_span = begin_span
        self._access_log = access_log
        self._settings = settings
        # Read once: `settings.origins` parses its text anew each time.
        self._origins = settings.origins
        self._log = log

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Serves one ASGI request from its first byte to its log line."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        exchange = begin_exchange(scope, receive, self._settings)
        request, call = exchange.request, exchange.call
        extra: Headers = [(b"x-request-id", call.request_id.encode())]
        if self._origins:
            extra += cors_headers(request.headers, self._origins)
        try:
            response = await self._serve(exchange)
            if isinstance(response, StreamedResponse):
                await self._stream(send, exchange, response, extra)
            else:
                await self._send(send, exchange, response, extra)
        except asyncio.CancelledError:
            # The request's own watch cancels this task; any other cancellation is the server's.
            if not request.gone:
                raise
            exchange.error = Cancelled("the caller went away")
        except Exception as exc:
            exchange.error = self._as_service_error(exc, call)
        finally:
            request.connection.on_gone = None
        if request.gone:
            exchange.status = _CLIENT_GONE
        elif exchange.error is not None and not exchange.status:
            # A response that has begun cannot take another status; it is left without its end.
            await self._send(send, exchange, self._error_response(exchange), extra)
        self._access_log.record(exchange, time.perf_counter() - started)

    async def _serve(self, exchange: HttpExchange) -> HttpResponse | StreamedResponse:
        request, call = exchange.request, exchange.call
        if request.header_count > MAX_HEADERS:
            raise InvalidInput(f"the request has more than {MAX_HEADERS} headers")
        if request.malformed:
            raise InvalidInput(request.malformed)
        document = self._documents.get(request.raw_path)
        if document is not None:
            exchange.route = request.raw_path.decode()
        if request.method == "OPTIONS":
            return self._options(request, document is not None)
        if document is not None:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(
                    "this path does not take this method", allow="GET, HEAD, OPTIONS"
                )
            return document.response_for(request.headers.get(b"accept", b""))
        match = exchange.match = self._table.find(request.method, request.raw_path)
        route = match.route
        call.method = route.rpc_name
        exchange.route = route.template.text
        exchange.quiet = route.rule.permission == ANONYMOUS
        if self._begin_span is not None:
            exchange.span = self._begin_span(f"{request.method} {exchange.route}", call)
        call.deadline = time.monotonic() + self._timeout(route, request.timeout)
        if route.rule.permission != ANONYMOUS:
            given = request.headers.get(b"authorization", b"").decode("latin-1")
            call.token, call.principal = await self._authenticate(given)
        return await self._handlers[route](exchange)

    def _timeout(self, route: Route, asked: float | None) -> float:
        """Returns the seconds that a call may take: `asked`, or the default, within the cap."""
        settings = self._settings
        if route.rpc.client_streaming or route.rpc.server_streaming:
            cap = settings.max_stream_seconds
            default = cap
        else:
            cap = settings.max_deadline_seconds
            default = settings.default_deadline_seconds
        return min(default if asked is None else asked, cap)

    def _options(self, request: HttpRequest, is_document: bool) -> HttpResponse:
        if is_document:
            methods = ["GET", "HEAD", "OPTIONS"]
        else:
            methods = self._table.allowed(request.raw_path)
        if not methods:
            raise RouteNotFound(
                "there is nothing at this path; GET /openapi.json lists what there is"
            )
        headers: Headers = [(b"allow", ", ".join(methods).encode())]
        if self._origins and b"access-control-request-method" in request.headers:
            headers += preflight_headers(methods)
        return HttpResponse(204, headers=headers)

    async def _stream(
        self, send: Send, exchange: HttpExchange, response: StreamedResponse, extra: Headers
    ) -> None:
        if exchange.request.method != "HEAD":
            exchange.status = 200
            async with aclosing(response.chunks):
                async for sent in send_stream(send, response, extra):
                    exchange.bytes_sent += sent
        else:
            # A generator that has begun runs its clean-up when it is closed.
            await anext(response.chunks, None)
            await response.chunks.aclose()
            empty = HttpResponse(200, content_type=response.content_type)
            await self._send(send, exchange, empty, extra)

    async def _send(
        self, send: Send, exchange: HttpExchange, response: HttpResponse, extra: Headers
    ) -> None:
        request = exchange.request
        encoding = None
        if len(response.body) >= self._settings.compress_from_bytes:
            encoding = response_encoding(request.headers.get(b"accept-encoding", b""))
        headers, body = await encode(response, extra, encoding)
        sent = b"" if request.method == "HEAD" else body
        exchange.status = response.status
        exchange.bytes_sent = len(sent)
        if request.complete or not request.still_sending:
            await request.connection.respond(response.status, headers, sent)
        else:
            # A client that is still sending reads no response; closing at once would reset it.
            limit = max(_DRAIN_BYTES, 2 * self._settings.max_body_bytes)
            drain = partial(request.drain, limit)
            await send_with_pause(send, response.status, headers, sent, drain)
            if not request.complete:
                request.connection.close()

    def _error_response(self, exchange: HttpExchange) -> HttpResponse:
        error = exchange.error
        assert error is not None
        body = self._write_error(exchange.request.raw_path, error)
        return HttpResponse(status_of(error), body, headers=headers_of(error))

    def _as_service_error(self, exc: Exception, call: CallContext) -> ServiceError:
        error = rpc_status.as_service_error(exc, call.request_id)
        if isinstance(error, Internal) and error is not exc:
            self._log.error("unexpected_error", method=call.method, exc_info=exc)
        return error
