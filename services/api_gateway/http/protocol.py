"""HTTP/1.1 of one connection, on uvicorn's protocol and httptools.

It differs from uvicorn's: a request head is bounded in bytes and seconds, a whole response goes out
in one write, an offer to upgrade is ignored, and trailers are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from services.api_gateway.http.exchange import CONNECTION
from services.api_gateway.http.response import Headers

# Bytes of a body up to which it is copied, to go out with its head in one system call.
_JOINED_BYTES = 64 * 1024
# Fields that say how long a body is.
_FRAMING = (b"content-length", b"transfer-encoding")
_INVALID = "Invalid HTTP request received."
_TOO_LARGE = "The request's headers are too large."


class _Connection:
    """The connection of one request; see `exchange.ClientConnection`."""

    __slots__ = ("body_arrived", "cycle", "gone", "on_gone")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self.on_gone: Callable[[], None] | None = None
        self.gone = False
        self.body_arrived = not cycle.more_body

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole response at once; ASGI's two messages would be two system calls."""
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers + headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        if len(body) <= _JOINED_BYTES:
            cycle.transport.write(b"".join([*lines, body]))
        else:
            cycle.transport.write(b"".join(lines))
            cycle.transport.write(body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def close(self) -> None:
        """Closes the connection; bytes that the client still sends are dropped."""
        self.cycle.transport.close()

    def lose(self) -> None:
        """Tells the request, unless it has its response, that its client is gone."""
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.gone = True
            if self.on_gone is not None:
                self.on_gone()


class _BoundedHeadProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a limit on a request's head, in bytes and seconds; httptools has neither.

    A request being served hears at once that its client is gone, without a task that waits for it.
    An offer to upgrade is ignored, as RFC 9110, 7.8 allows, and trailer fields are dropped: they
    are no headers (RFC 9110, 6.5.1).
    """

    max_head_bytes: ClassVar[int]
    head_seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        # Bytes of the unfinished head in earlier reads, and bytes of the present read.
        self._head_bytes = 0
        self._read_bytes = 0
        self._overdue: asyncio.TimerHandle | None = None
        self._connection: _Connection | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._overdue = self.loop.call_later(self.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._connection is not None:
            self._connection.lose()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Requests of one connection are served one after the other.
        self._connection = _Connection(cycle)
        extensions: Any = {CONNECTION: self._connection}
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._read_bytes = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as exc:
            too_large = isinstance(exc.__context__, _HeadTooLarge)
            self.send_400_response(_TOO_LARGE if too_large else _INVALID)
            return
        if not self._in_head:
            self._stop_head_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.max_head_bytes:
            self.send_400_response(_TOO_LARGE)
        elif self._overdue is None:
            self._overdue = self.loop.call_later(self.head_seconds, self.transport.close)

    def _feed(self, data: bytes) -> None:
        """Parses what was read. Raises httptools.HttpParserError.

        The parser ends with a head that offers an upgrade and takes its body for another protocol.
        A new one goes on there, with a head that says the same of the body's length and no more.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as exc:
                data = data[exc.args[0] :]
            framing = [field for field in self.scope["headers"] if field[0] in _FRAMING]
            lines = [b"%b: %b\r\n" % field for field in framing]
            self.parser = httptools.HttpRequestParser(_AfterUpgrade(self))
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines, b"\r\n"]))

    def _stop_head_timer(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # `_feed` reads the body
        super().on_message_complete()
        # A pipelined request completes before its own connection object exists, which reads the
        # cycle when it is made.
        if self._connection is not None and self._connection.cycle is self.cycle:
            self._connection.body_arrived = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        # A read may hold much of a body, or many heads: only then is this one measured.
        if self._head_bytes + self._read_bytes > self.max_head_bytes:
            fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if len(self.url) + fields > self.max_head_bytes:
                raise _HeadTooLarge
        super().on_headers_complete()
        # The parser reports trailers as it does headers; nobody reads them from this list.
        self.headers = []


class _HeadTooLarge(Exception):
    """A request's head is larger than it may be."""


class _AfterUpgrade:
    """The callbacks of a parser that goes on behind a head which offered an upgrade.

    Its first head is the one that `_feed` writes and is passed over; all else is the protocol's.
    """

    def __init__(self, protocol: _BoundedHeadProtocol) -> None:
        self._protocol = protocol
        self._own_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        """Passes on the beginning of a request."""
        if not self._own_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Passes on a piece of a request's target."""
        if not self._own_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Passes on a header or trailer field."""
        if not self._own_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """Passes on the end of a head."""
        if self._own_head:
            self._own_head = False
        else:
            self._protocol.on_headers_complete()


def bounded_head_protocol(max_head_bytes: int, head_seconds: float) -> type[asyncio.Protocol]:
    """Returns a protocol class with these limits; uvicorn makes its objects without arguments."""
    limits = {"max_head_bytes": max_head_bytes, "head_seconds": head_seconds}
    return type("BoundedHeadProtocol", (_BoundedHeadProtocol,), limits)
