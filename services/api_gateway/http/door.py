"""The HTTP door: request id → route → deadline → authenticate → handler → response or typed error.

The door establishes who calls; the services behind decide who may do what. No exception gets out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import structlog

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.access_log import AccessLog
from services.api_gateway.http.content_encoding import response_encoding
from services.api_gateway.http.exchange import Handler, HttpExchange, begin_exchange
from services.api_gateway.http.heads import MAX_HEADERS, ParsedHead
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.response import (
    Document,
    Headers,
    HttpResponse,
    StreamedResponse,
    cors_headers,
    encode,
    encode_now,
    lines_of,
    preflight_headers,
    takes_long,
)
from services.api_gateway.http.status import error_headers, status_of
from services.api_gateway.routing.routes import Route, RouteTable
from services.chassis import rpc_status
from services.chassis.context import CallContext, Principal, bind
from stellwerk.wire.errors import (
    Cancelled,
    Internal,
    InvalidInput,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
)
from stellwerk.wire.permissions import ANONYMOUS

# HTTP's common status for a caller that went away before its response, for the log alone.
_CLIENT_GONE = 499


class HttpDoor:
    """Serves requests: finds who calls and what, has a handler answer, and sends the answer."""

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
        self._compress_from_bytes = settings.compress_from_bytes
        # Responses of the fast way that are being compressed in a thread.
        self._compressing: set[asyncio.Task[None]] = set()
        self._log = log

    async def __call__(self, request: HttpRequest) -> None:
        """Serves one request from its head to its log line."""
        exchange = begin_exchange(request, self._settings)
        bind(exchange.call)
        try:
            response = await self._serve(exchange)
            if isinstance(response, StreamedResponse):
                await self._stream(exchange, response)
            else:
                await self._send(exchange, response)
        except asyncio.CancelledError:
            # The request's own watch cancels this task; any other cancellation is the server's.
            if not request.gone:
                raise
            exchange.error = Cancelled("the caller went away")
        except Exception as exc:
            exchange.error = self._as_service_error(exc, exchange.call)
        finally:
            request.on_gone = None
        if request.gone:
            exchange.status = _CLIENT_GONE
        elif exchange.error is not None and not exchange.status:
            # A response that has begun cannot take another status; it is left without its end.
            await self._send(exchange, self._error_response(exchange))
        self._access_log.record(exchange)

    def finish(self, exchange: HttpExchange, outcome: HttpResponse | ServiceError) -> None:
        """Ends an exchange of the fast way as `__call__` ends others, without a task.

        Sends the outcome, unless the client is gone, and records the exchange.
        """
        request = exchange.request
        request.on_gone = None
        if isinstance(outcome, ServiceError):
            exchange.error = outcome
            response = self._error_response(exchange)
        else:
            response = outcome
        encoding = self._encoding(exchange, response)
        if encoding is not None and takes_long(response):
            task = asyncio.create_task(self._compress(exchange, response, encoding))
            self._compressing.add(task)
            task.add_done_callback(self._compressing.discard)
        else:
            encoded = encode_now(response, self._extra(exchange), encoding)
            self._answer(exchange, response.status, *encoded)

    async def _compress(
        self, exchange: HttpExchange, response: HttpResponse, encoding: bytes
    ) -> None:
        encoded = await encode(response, self._extra(exchange), encoding)
        self._answer(exchange, response.status, *encoded)

    def _answer(self, exchange: HttpExchange, status: int, lines: bytes, body: bytes) -> None:
        if exchange.request.gone:
            exchange.error = Cancelled("the caller went away")
            exchange.status = _CLIENT_GONE
        else:
            exchange.status = status
            exchange.bytes_sent = len(body)
            exchange.request.answer(status, lines, body)
        self._access_log.record(exchange)

    async def _serve(self, exchange: HttpExchange) -> HttpResponse | StreamedResponse:
        head, call = exchange.request.head, exchange.call
        if head.header_count > MAX_HEADERS:
            raise InvalidInput(f"the request has more than {MAX_HEADERS} headers")
        if head.malformed:
            raise InvalidInput(head.malformed)
        document = self._documents.get(head.raw_path)
        if document is not None:
            exchange.route = head.raw_path.decode()
        if head.method == "OPTIONS":
            return self._options(head, document is not None)
        if document is not None:
            if head.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(
                    "this path does not take this method", allow="GET, HEAD, OPTIONS"
                )
            return document.response_for(head.headers.get(b"accept", b""))
        route = self.enter(exchange)
        if route.rule.permission != ANONYMOUS:
            given = exchange.authorization
            call.token, call.principal = await self._authenticate(given)
        return await self._handlers[route](exchange)

    def enter(self, exchange: HttpExchange) -> Route:
        """Finds the route of an exchange and gives its call the method, a deadline and a span.

        Raises RouteNotFound, MethodNotAllowed and InvalidInput.
        """
        head, call = exchange.request.head, exchange.call
        exchange.match = self._table.find(head.method, head.raw_path)
        route = exchange.match.route
        call.method = route.rpc_name
        exchange.route = route.template.text
        exchange.quiet = route.rule.permission == ANONYMOUS
        if self._begin_span is not None:
            exchange.span = self._begin_span(f"{head.method} {exchange.route}", call)
        call.deadline = time.monotonic() + self._timeout(route, head.timeout)
        return route

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

    def _options(self, head: ParsedHead, is_document: bool) -> HttpResponse:
        documented = ["GET", "HEAD", "OPTIONS"]
        methods = documented if is_document else self._table.allowed(head.raw_path)
        if not methods:
            raise RouteNotFound(
                "there is nothing at this path; GET /openapi.json lists what there is"
            )
        headers: Headers = [(b"allow", ", ".join(methods).encode())]
        if self._origins and b"access-control-request-method" in head.headers:
            headers += preflight_headers(methods)
        return HttpResponse(204, headers=headers)

    async def _stream(self, exchange: HttpExchange, response: StreamedResponse) -> None:
        request, extra = exchange.request, self._extra(exchange)
        if request.head.method != "HEAD":
            lines = lines_of(response, extra)
            async with aclosing(response.chunks):
                exchange.status = 200
                await request.begin(200, lines)
                async for chunk in response.chunks:
                    await request.send(chunk)
                    exchange.bytes_sent += len(chunk)
                request.end()
        else:
            # A generator that has begun runs its clean-up when it is closed.
            await anext(response.chunks, None)
            await response.chunks.aclose()
            await self._send(exchange, HttpResponse(200, content_type=response.content_type))

    async def _send(self, exchange: HttpExchange, response: HttpResponse) -> None:
        request = exchange.request
        encoding = self._encoding(exchange, response)
        lines, body = await encode(response, self._extra(exchange), encoding)
        sent = b"" if request.head.method == "HEAD" else body
        exchange.status = response.status
        exchange.bytes_sent = len(sent)
        await request.respond(response.status, lines, sent)

    def _extra(self, exchange: HttpExchange) -> Headers:
        """Returns the headers that each response of the exchange has."""
        extra: Headers = [(b"x-request-id", exchange.call.request_id.encode())]
        if self._origins:
            extra += cors_headers(exchange.request.head.headers, self._origins)
        return extra

    def _encoding(self, exchange: HttpExchange, response: HttpResponse) -> bytes | None:
        """Returns the coding that a response is compressed with, None for none."""
        if len(response.body) < self._compress_from_bytes:
            return None
        return response_encoding(exchange.request.head.headers.get(b"accept-encoding", b""))

    def _error_response(self, exchange: HttpExchange) -> HttpResponse:
        error = exchange.error
        assert error is not None
        body = self._write_error(exchange.request.head.raw_path, error)
        return HttpResponse(status_of(error), body, headers=error_headers(error))

    def _as_service_error(self, exc: Exception, call: CallContext) -> ServiceError:
        error = rpc_status.as_service_error(exc, call.request_id)
        if isinstance(error, Internal) and error is not exc:
            self._log.error("unexpected_error", method=call.method, exc_info=exc)
        return error
