"""A request on its connection: its head, its bounded body as it arrives, and its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from services.api_gateway.http.connections import Connections
from services.api_gateway.http.content_encoding import Inflater, inflate, too_large, window_bits
from services.api_gateway.http.heads import Cuts, ParsedHead
from services.api_gateway.http.response import STATUS_LINES
from services.chassis.futures import settle
from stellwerk.wire.errors import Cancelled, DeadlinePassed

# Bytes of a compressed body up to which it is inflated on the event loop; larger ones in a thread.
_INFLATE_IN_THREAD = 16 * 1024
# Bytes of a response's body up to which it is copied, to go out with its head in one system call.
JOINED_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_END = b"\r\n"
_CLOSE = b"connection: close\r\n\r\n"


class ClientConnection(Protocol):
    """The connection that a request came on; see `protocol.HttpConnection`."""

    connections: Connections
    peer: str
    # Whether the client reads its response more slowly than it is written.
    write_paused: bool
    # Whether nothing is read, because much of a body waits or a request for its turn.
    reading_paused: bool
    # Writes bytes at once.
    write: Callable[[bytes], None]

    async def writable(self) -> None:
        """Returns when what was written has mostly been sent, or the client is gone."""

    def is_last(self) -> bool:
        """Returns whether no request waits behind the one being served."""

    def read_on(self) -> None:
        """Reads what the client sends, after the parts of a body were taken."""

    def go_on(self, request: HttpRequest) -> None:
        """Goes on behind the end of the request's response."""


class HttpRequest:
    """A request on its connection: its head, its body as it arrives, and its response."""

    __slots__ = (
        "_is_chunked",
        "_may_send",
        "_parts",
        "_waiter",
        "api_key",
        "arrived",
        "begun",
        "bytes_read",
        "closes",
        "connection",
        "ended",
        "gone",
        "head",
        "on_gone",
        "request_id",
        "traceparent",
        "unread",
    )

    def __init__(
        self,
        connection: ClientConnection,
        head: ParsedHead,
        cuts: Cuts,
        body: bytes | None = None,
    ) -> None:
        """Takes what is cut out of the head, and the body if it has arrived."""
        self.connection = connection
        self.head = head
        self.request_id, self.traceparent, self.api_key = cuts
        # Called once, when the client goes away before it has its response.
        self.on_gone: Callable[[], object] | None = None
        # Whether the client went away before it had its response.
        self.gone = False
        # Whether all of the body has arrived, and how many bytes of it.
        self.arrived = body is not None
        self.bytes_read = len(body) if body else 0
        # Whether the response has begun, and whether it has ended.
        self.begun = False
        self.ended = False
        # Whether the connection ends with the response, and whether that is chunked.
        self.closes = False
        self._is_chunked = False
        # Bytes that have arrived and that nobody has taken yet.
        self.unread = 0
        self._parts: list[bytes] = [body] if body else []
        self._waiter: asyncio.Future[None] | None = None
        self._may_send = not head.expects_continue

    def receive(self, part: bytes) -> None:
        """Adds a part of the body."""
        self._parts.append(part)
        self.unread += len(part)
        self.bytes_read += len(part)
        self._wake()

    def receive_end(self) -> None:
        """Notes that all of the body has arrived."""
        self.arrived = True
        self._wake()

    def lose(self) -> None:
        """Notes that the client is gone, unless it has its response."""
        if not self.ended and not self.gone:
            self.gone = True
            self._wake()
            if self.on_gone is not None:
                self.on_gone()

    def _wake(self) -> None:
        if self._waiter is not None:
            settle(self._waiter, None)

    @property
    def waits_for_leave(self) -> bool:
        """Returns whether the client still waits for leave to send its body."""
        return not self._may_send and not self.arrived and not self.bytes_read

    async def body(self, limit: int, deadline: float) -> bytes:
        """Returns the whole body, decompressed, at most `limit` bytes.

        Afterwards the client's going away cancels the current task. `deadline` is a value of
        time.monotonic(). Raises TooLarge, InvalidInput, DeadlinePassed, and Cancelled.
        """
        if self.head.content_length > limit:
            raise too_large(limit)
        bits = self._window_bits()
        if not self.arrived:
            await self._arrival(limit, deadline)
        if self.bytes_read > limit:
            raise too_large(limit)
        parts = self._take()
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        self.watch()
        if bits is None or not whole:
            return whole
        if len(whole) < _INFLATE_IN_THREAD:
            return inflate(whole, bits, limit)
        return await asyncio.to_thread(inflate, whole, bits, limit)

    async def _arrival(self, limit: int, deadline: float) -> None:
        """Waits until the whole body is in the list of parts."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                while part := await self._next_parts():
                    if self.bytes_read > limit:
                        raise too_large(limit)
                    parts += part
        except TimeoutError:
            raise DeadlinePassed("the body did not arrive before the deadline") from None
        self._parts = parts

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed, in pieces of about `size` bytes. Raises
        InvalidInput, Cancelled.
        """
        bits = self._window_bits()
        inflater = None if bits is None else Inflater(bits)
        waiting = bytearray()
        while parts := await self._next_parts():
            for part in parts:
                for data in (part,) if inflater is None else inflater.pieces(part, size):
                    waiting += data
                    if len(waiting) >= size:
                        yield bytes(waiting)
                        waiting.clear()
        if inflater is not None:
            inflater.finish()
        if waiting:
            yield bytes(waiting)

    async def _next_parts(self) -> list[bytes]:
        """Returns what has arrived of the body and was not taken yet; an empty list at its end."""
        while not self._parts and not self.arrived and not self.gone:
            if not self._may_send:
                self._may_send = True
                self.connection.write(_CONTINUE)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.gone:
            raise Cancelled("the caller went away")
        return self._take()

    def _take(self) -> list[bytes]:
        parts = self._parts
        self._parts = []
        self.unread = 0
        if self.connection.reading_paused:
            self.connection.read_on()
        return parts

    def drop(self) -> None:
        """Forgets the parts of the body that nobody has taken."""
        self._parts.clear()
        self.unread = 0

    def _window_bits(self) -> int | None:
        if b"content-encoding" not in self.head.headers:
            return None
        return window_bits(self.head.header(b"content-encoding"))

    def watch(self) -> None:
        """Cancels the current task when the client goes away, from now on."""
        task = asyncio.current_task()
        assert task is not None
        self.on_gone = task.cancel
        if self.gone:
            task.cancel()

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Sends a whole response with these header lines, at once.

        Does nothing if the client is gone or has a response.
        """
        if self.begun or self.gone:
            return
        connection = self.connection
        self._decide()
        date = connection.connections.date_line
        head = b"%b%b%b%b" % (STATUS_LINES[status], date, lines, _CLOSE if self.closes else _END)
        if len(body) <= JOINED_BYTES:
            connection.write(head + body)
        else:
            connection.write(head)
            connection.write(body)
        self._finish()

    async def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """Sends a whole response when the client has read most of what was sent before."""
        if self.connection.write_paused:
            await self.connection.writable()
        self.answer(status, lines, body)

    async def begin(self, status: int, lines: bytes) -> None:
        """Sends the head of a response of unknown length."""
        if self.connection.write_paused:
            await self.connection.writable()
        if self.begun or self.gone:
            return
        self._decide()
        # HTTP/1.0 knows no chunks and ends a body by closing (RFC 9112, 6.1).
        self._is_chunked = self.head.version == "1.1"
        self.closes = self.closes or not self._is_chunked
        if self._is_chunked:
            lines += b"transfer-encoding: chunked\r\n"
        date = self.connection.connections.date_line
        end = _CLOSE if self.closes else _END
        self.connection.write(b"%b%b%b%b" % (STATUS_LINES[status], date, lines, end))

    async def send(self, data: bytes) -> None:
        """Sends a part of a response, when the client has read most of what was sent before."""
        if self.connection.write_paused:
            await self.connection.writable()
        if data and not self.gone:
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def end(self) -> None:
        """Ends a response of unknown length."""
        if self.gone or self.ended:
            return
        if self._is_chunked:
            self.connection.write(_LAST_CHUNK)
        self._finish()

    def _decide(self) -> None:
        """Begins a response, and decides whether its connection ends with it."""
        self.begun = True
        self.closes = (
            not self.head.keeps_alive
            # A client that waits for leave to send its body may send it or its next request.
            or (not self._may_send and self.waits_for_leave)
            or (self.connection.connections.stopping and self.connection.is_last())
        )

    def _finish(self) -> None:
        self.ended = True
        self.on_gone = None
        self.connection.go_on(self)
