"""The HTTP door: a raw ASGI application. Request id → route → deadline → authenticate → handler →
answer or typed error.

Who may do what is decided by the services behind; here only who asks is established. No exception
gets out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from services.api_gateway.http import cors
from services.api_gateway.http import status as http_status
from services.api_gateway.http.access_log import HttpJournal
from services.api_gateway.http.exchange import Limits, Passage, Visit
from services.api_gateway.http.request import MAX_HEADERS, Request
from services.api_gateway.http.response import (
    Answer,
    Headers,
    Send,
    Stream,
    encoding_for,
    prepared,
    send_slowly,
    send_stream,
)
from services.api_gateway.site import Site
from services.chassis import context, rpc_status
from services.chassis.access.token_verifier import bearer
from services.chassis.context import CallContext, Principal
from services.chassis.telemetry import valid_traceparent
from stellwerk.wire.errors import (
    Cancelled,
    Internal,
    InvalidInput,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
)
from stellwerk.wire.permissions import ANONYMOUS

_V2 = (b"/v2/", b"/v2")
# Of a body that is not wanted, at least so much is taken before the connection is closed.
_LINGER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """How callers show who they are."""

    exchange: Callable[[str], Awaitable[str]]
    verify: Callable[[str], Principal]


class HttpDoor:
    """The ASGI application."""

    def __init__(
        self,
        site: Site,
        doorkeeper: Doorkeeper,
        limits: Limits,
        journal: HttpJournal,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._site, self._keeper, self._limits = site, doorkeeper, limits
        self._journal, self._log = journal, log

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        started, request = time.perf_counter(), Request(scope, receive)
        call = _call_of(request)
        context.bind(call)
        passage = Passage(request, call)
        extra: Headers = [(b"x-request-id", call.request_id.encode())]
        if self._site.origins:
            extra += cors.headers(request.headers, self._site.origins)
        try:
            answer = await self._serve(passage)
            if isinstance(answer, Stream):
                await self._stream(send, passage, answer, extra)
            else:
                await self._send(send, passage, answer, extra)
        except asyncio.CancelledError:
            if not request.gone:
                raise
            passage.error = Cancelled("the caller went away")
        except Exception as exc:
            passage.error = self._mean(exc, call)
        finally:
            request.unwatch()
        if request.gone:
            passage.status = 499
        elif passage.error is not None and not passage.status:
            await self._send(send, passage, _error_answer(request, passage.error), extra)
        self._journal.note(passage, time.perf_counter() - started)

    async def _stream(self, send: Send, passage: Passage, answer: Stream, extra: Headers) -> None:
        if passage.request.method != "HEAD":
            passage.status = 200
            async with aclosing(answer.chunks):
                async for sent in send_stream(send, answer, extra):
                    passage.bytes_sent += sent
        else:
            await anext(answer.chunks, None)
            await answer.chunks.aclose()
            await self._send(send, passage, Answer(200, content_type=answer.content_type), extra)

    async def _serve(self, passage: Passage) -> Answer | Stream:
        request, call, limits = passage.request, passage.call, self._limits
        if request.header_count > MAX_HEADERS:
            raise InvalidInput(f"the request has more than {MAX_HEADERS} headers")
        document = self._site.documents.get(request.raw_path)
        if document is not None:
            passage.route = request.raw_path.decode()
        if request.method == "OPTIONS":
            return self._options(request, document is not None)
        if document is not None:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(
                    "this path does not take this method", allow="GET, HEAD, OPTIONS"
                )
            return document
        match = self._site.table.find(request.method, request.raw_path)
        route = match.route
        call.method, passage.route = route.rpc_name, route.template.text
        passage.quiet = route.rule.permission == ANONYMOUS
        self._journal.begin(passage)
        streams = route.rpc.client_streaming or route.rpc.server_streaming
        usual = limits.max_stream_seconds if streams else limits.default_deadline_seconds
        cap = limits.max_stream_seconds if streams else limits.max_deadline_seconds
        call.deadline = time.monotonic() + request.timeout(usual, cap)
        if route.rule.permission != ANONYMOUS:
            await self._authenticate(request, call)
        handler = self._site.handlers.get(route.rpc_name, self._site.rest)
        return await handler(Visit(request, match, call, limits))

    async def _authenticate(self, request: Request, call: CallContext) -> None:
        call.token = await self._keeper.exchange(bearer(request.header(b"authorization")))
        call.principal = self._keeper.verify(call.token)

    def _options(self, request: Request, is_document: bool) -> Answer:
        methods = (
            ["GET", "HEAD", "OPTIONS"]
            if is_document
            else self._site.table.allowed(request.raw_path)
        )
        if not methods:
            raise RouteNotFound(
                "there is nothing at this path; GET /openapi.json lists what there is"
            )
        headers: Headers = [(b"allow", ", ".join(methods).encode())]
        if self._site.origins and b"access-control-request-method" in request.headers:
            headers += cors.preflight(methods)
        return Answer(204, headers=headers)

    async def _send(self, send: Send, passage: Passage, answer: Answer, extra: Headers) -> None:
        request = passage.request
        encoding = None
        if len(answer.body) >= self._site.compress_from_bytes:
            encoding = encoding_for(request.headers.get(b"accept-encoding", b""))
        headers, body = await prepared(answer, extra, encoding)
        sent = b"" if request.method == "HEAD" else body
        passage.status, passage.bytes_sent = answer.status, len(sent)
        if request.complete or not request.sends_on:
            await request.sender.answer(answer.status, headers, sent)
        else:
            linger = partial(request.linger, max(_LINGER_BYTES, 2 * self._limits.max_body_bytes))
            await send_slowly(send, answer.status, headers, sent, linger)
            if not request.complete:
                # There may be no end of it.
                request.sender.close()

    def _mean(self, exc: Exception, call: CallContext) -> ServiceError:
        error = rpc_status.as_service_error(exc, call.request_id)
        if isinstance(error, Internal) and error is not exc:
            self._log.error("unexpected_error", method=call.method, exc_info=exc)
        return error


def _call_of(request: Request) -> CallContext:
    call = CallContext("", request.request_id(), request.peer)
    if b"traceparent" in request.headers:
        call.traceparent = valid_traceparent(request.header(b"traceparent"))
        call.tracestate = request.header(b"tracestate")[:512]
    return call


def _error_answer(request: Request, error: ServiceError) -> Answer:
    speaks_inference = request.raw_path == _V2[1] or request.raw_path.startswith(_V2[0])
    body = http_status.inference_body(error) if speaks_inference else http_status.status_body(error)
    return Answer(http_status.status_of(error), body, headers=http_status.headers_of(error))
