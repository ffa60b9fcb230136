"""The exchange of a request for a response: its call, its route, and what became of it."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.response import HttpResponse, StreamedResponse
from services.api_gateway.routing.routes import Match
from services.chassis.context import CallContext, new_request_id
from services.chassis.telemetry import valid_traceparent
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_REQUEST_ID_LENGTH}}}")


@dataclass(slots=True)
class HttpExchange:
    """A request on its way through the door, and what its log line needs."""

    request: HttpRequest
    call: CallContext
    settings: GatewaySettings
    # The value of time.perf_counter() at which the request began to be served.
    started: float
    # Set when the route is known, before a handler is called.
    match: Match = field(init=False)
    # The route's name in the log and the metrics: a template or a document's path, never the
    # caller's own path.
    route: str = "(none)"
    # Whether anyone may ask at any time, as for health: then a success is logged at level debug.
    quiet: bool = False
    # The tracing span, None where the trace is not sampled.
    span: Any = None
    error: ServiceError | None = None
    # The response's HTTP status, 0 until it has begun.
    status: int = 0
    bytes_sent: int = 0

    @property
    def authorization(self) -> str:
        """The Authorization value, "" if the request has none."""
        if self.request.api_key:
            return f"Bearer {self.request.api_key.decode()}"
        return self.request.head.header(b"authorization")

    async def body(self) -> bytes:
        """Returns the request's whole body within the settings' limits.

        Afterwards the client's going away cancels the current task.
        """
        deadline = self.call.deadline
        assert deadline is not None
        return await self.request.body(self.settings.max_body_bytes, deadline)


Handler = Callable[[HttpExchange], Awaitable[HttpResponse | StreamedResponse]]
# Serves a request whose whole body is given without a task, and returns whether it does: False
# leaves the request as it was. Whoever takes it sets `on_gone` and calls `answer` once, later or at
# once.
FastWay = Callable[[HttpRequest, bytes], bool]


def begin_exchange(request: HttpRequest, settings: GatewaySettings) -> HttpExchange:
    """Returns the exchange of a request, with a call that has no method and no caller yet."""
    given = request.request_id.decode("latin-1").strip()
    if not _REQUEST_ID.fullmatch(given):
        given = new_request_id()
    call = CallContext("", given, request.connection.peer)
    if request.traceparent:
        call.traceparent = valid_traceparent(request.traceparent.decode("latin-1").strip())
        call.tracestate = request.head.header(b"tracestate")[:512]
    return HttpExchange(request, call, settings, time.perf_counter())
