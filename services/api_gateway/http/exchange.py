"""One HTTP request with its bounded body, and its exchange: call, route and outcome."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.content_encoding import Inflater, inflate, too_large, window_bits
from services.api_gateway.http.response import HttpResponse, StreamedResponse
from services.api_gateway.routing.routes import Match
from services.chassis.context import CallContext, bind, new_request_id
from services.chassis.telemetry import valid_traceparent
from stellwerk.wire.errors import Cancelled, DeadlinePassed, ServiceError
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

# Headers of one request; browsers and proxies send some 30.
MAX_HEADERS = 100
# The key of the ASGI scope's extensions that holds the ClientConnection.
CONNECTION = "stellwerk.connection"
# Bytes of a compressed body up to which it is inflated on the event loop; larger ones in a thread.
_INFLATE_IN_THREAD = 16 * 1024
# Seconds for which an unwanted body is read and dropped, so that its sender reads the response.
_LINGER_SECONDS = 15.0
# Headers that announce a body, and the one that waits for leave to send it (RFC 9110, 10.1.1).
_ANNOUNCES_BODY = frozenset({b"content-length", b"transfer-encoding"})
_EXPECT = b"expect"
# Header fields with one value: sent twice, the request is malformed (RFC 9110, 5.3). The HTTP
# parser checks Content-Length; two Host values joined are no host.
_SINGLETONS = (b"authorization", b"content-type")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
_GRPC_FORM, _PLAIN_FORM = b"grpc-timeout", b"x-request-timeout"
_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_REQUEST_ID_LENGTH}}}")
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SECONDS = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,9})?")


class ClientConnection(Protocol):
    """The connection of a request, as far as the server goes beyond ASGI."""

    # Called once, when the client goes away before it has its response.
    on_gone: Callable[[], None] | None
    # Whether the client went away before it had its response.
    gone: bool
    # Whether all of the body has arrived, so that nobody has to wait for it.
    body_arrived: bool

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Sends a whole response, instead of ASGI's messages."""

    def close(self) -> None:
        """Closes the connection; bytes that the client still sends are dropped."""


class HttpRequest:
    """A request as ASGI gives it, read by one task."""

    __slots__ = (
        "_receive",
        "bytes_read",
        "complete",
        "connection",
        "gone",
        "header_count",
        "headers",
        "malformed",
        "method",
        "peer",
        "query",
        "raw_path",
        "timeout",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.peer: str = scope["client"][0] if scope.get("client") else ""
        fields: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(fields)
        self.header_count = len(fields)
        # What is wrong with the headers, "" if nothing.
        self.malformed = ""
        if len(self.headers) != len(fields):
            self._join_repeated(fields)
        host = self.headers.get(b"host")
        if not (_is_host(host) if host is not None else scope.get("http_version") == "1.0"):
            self.malformed = "an HTTP/1.1 request needs one Host header, such as 127.0.0.1:8080"
        if scope["http_version"] not in ("1.1", "1.0"):
            self.malformed = "the request must be of HTTP/1.1 or HTTP/1.0"
        if self.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            self.malformed = "Transfer-Encoding must be chunked; say gzip as Content-Encoding"
        self.gone = False
        self.bytes_read = 0
        self.complete = False
        self._receive = receive
        # Taken out: the server's scope would else refer to itself and wait for the collector.
        self.connection: ClientConnection = scope["extensions"].pop(CONNECTION)
        # The seconds that the caller gives the call, None if it names none.
        self.timeout: float | None = None
        if _GRPC_FORM in self.headers or _PLAIN_FORM in self.headers:
            self._read_timeout()

    def _join_repeated(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Joins the values of list fields sent in several lines (RFC 9110, 5.2)."""
        joined: dict[bytes, bytes] = {}
        for name, value in fields:
            if name in joined and name in _SINGLETONS:
                self.malformed = f"the header {name.decode().title()} is given twice; send it once"
            joined[name] = joined[name] + b", " + value if name in joined else value
        self.headers = joined

    def header(self, name: bytes) -> str:
        """Returns the header's value, "" if the request has no such header."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def request_id(self) -> str:
        """Returns the caller's own request id if it can be logged as it is, else a fresh one."""
        if b"x-request-id" in self.headers and _REQUEST_ID.fullmatch(
            given := self.header(b"x-request-id")
        ):
            return given
        return new_request_id()

    def _read_timeout(self) -> None:
        """Reads Grpc-Timeout ("100m"), or else X-Request-Timeout (seconds)."""
        grpc_form, plain = self.header(_GRPC_FORM), self.header(_PLAIN_FORM)
        if grpc_form:
            match = _GRPC_TIMEOUT.fullmatch(grpc_form)
            self.timeout = int(match.group(1)) * _GRPC_UNITS[match.group(2)] if match else 0.0
        elif plain:
            self.timeout = float(plain) if _SECONDS.fullmatch(plain) else 0.0
        if self.timeout is not None and self.timeout <= 0:
            self.malformed = (
                "a timeout is a positive number: 'Grpc-Timeout: 500m' or 'X-Request-Timeout: 0.5'"
            )

    async def body(self, limit: int, deadline: float) -> bytes:
        """Returns the whole body, decompressed, at most `limit` bytes.

        `deadline` is a value of time.monotonic(). Raises TooLarge, InvalidInput, DeadlinePassed.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise too_large(limit)
        bits = self._window_bits()
        # The usual body has arrived with its head: no wait, and so no timeout to set up.
        if self.connection.body_arrived and not self.complete:
            whole = await self._next_part()
            if len(whole) > limit:
                raise too_large(limit)
        else:
            whole = await self._collect(limit, deadline)
        if bits is None or not whole:
            return whole
        if len(whole) < _INFLATE_IN_THREAD:
            return inflate(whole, bits, limit)
        return await asyncio.to_thread(inflate, whole, bits, limit)

    async def _collect(self, limit: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async for part in self._parts():
                    if self.bytes_read > limit:
                        raise too_large(limit)
                    parts.append(part)
        except TimeoutError:
            raise DeadlinePassed("the body did not arrive before the deadline") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed, in pieces of about `size` bytes. Raises
        InvalidInput, Cancelled.
        """
        bits = self._window_bits()
        inflater = None if bits is None else Inflater(bits)
        waiting = bytearray()
        async for part in self._parts():
            for data in (part,) if inflater is None else inflater.pieces(part, size):
                waiting += data
                if len(waiting) >= size:
                    yield bytes(waiting)
                    waiting.clear()
        if inflater is not None:
            inflater.finish()
        if waiting:
            yield bytes(waiting)

    @property
    def still_sending(self) -> bool:
        """Returns whether the client is still sending its body, not waiting for leave to begin."""
        announced = not _ANNOUNCES_BODY.isdisjoint(self.headers) and _EXPECT not in self.headers
        return announced and not self.complete and not self.gone

    async def drain(self, limit: int) -> None:
        """Reads and drops at most `limit` more bytes of the body, for 15 seconds at most."""
        end = self.bytes_read + limit
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                async for _ in self._parts():
                    if self.bytes_read > end:
                        return
        except (TimeoutError, Cancelled):
            return

    async def _parts(self) -> AsyncIterator[bytes]:
        while not self.complete:
            if part := await self._next_part():
                yield part

    async def _next_part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            raise Cancelled("the caller went away")
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        self.bytes_read += len(part)
        return part

    def _window_bits(self) -> int | None:
        if b"content-encoding" not in self.headers:
            return None
        return window_bits(self.header(b"content-encoding"))

    def watch(self) -> None:
        """Cancels the current task when the client goes away, from now on."""
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            self.gone = True
            task.cancel()

        self.connection.on_gone = cancel
        if self.connection.gone:
            cancel()


@dataclass(slots=True)
class HttpExchange:
    """A request on its way through the door, and what its log line needs."""

    request: HttpRequest
    call: CallContext
    settings: GatewaySettings
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

    async def body(self) -> bytes:
        """Returns the request's whole body within the settings' limits.

        Afterwards the client's going away cancels the current task.
        """
        deadline = self.call.deadline
        assert deadline is not None
        body = await self.request.body(self.settings.max_body_bytes, deadline)
        self.request.watch()
        return body


Handler = Callable[[HttpExchange], Awaitable[HttpResponse | StreamedResponse]]


def begin_exchange(scope: Scope, receive: Receive, settings: GatewaySettings) -> HttpExchange:
    """Reads a request's head and makes its call the current one of this task."""
    request = HttpRequest(scope, receive)
    call = CallContext("", request.request_id(), request.peer)
    if b"traceparent" in request.headers:
        call.traceparent = valid_traceparent(request.header(b"traceparent"))
        call.tracestate = request.header(b"tracestate")[:512]
    bind(call)
    return HttpExchange(request, call, settings)


# Clients repeat one Host; the cache, in C, is six times as fast as the pattern.
@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
