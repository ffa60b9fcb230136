"""HTTP/1.1 of one connection: requests are served in order, and what waits is bounded in bytes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from services.api_gateway.http.connections import NEVER, Connections, Limits, WriteFlow
from services.api_gateway.http.exchange import FastWay
from services.api_gateway.http.heads import Cuts, KnownHead, KnownHeads, ParsedHead
from services.api_gateway.http.parsing import Malformed, RequestParser
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.response import refusal

# Bytes given to the parser at once. What waits behind a request that is being served is parsed by
# at most as much, and else kept as bytes: parsed, small requests take 30 times their bytes.
_SLICE = 16 * 1024
# Bytes of a body that may wait to be taken before reading is paused.
_HIGH_WATER = 64 * 1024


class HttpConnection(WriteFlow):
    """One connection: parses requests, has them served in order, and writes their responses."""

    def __init__(
        self,
        connections: Connections,
        heads: KnownHeads,
        limits: Limits,
        serve: Callable[[HttpRequest], Awaitable[None]],
        fast: FastWay | None,
    ) -> None:
        """Has each request served by `fast`, or else by `serve` in a task of its own."""
        super().__init__()
        self.connections = connections
        self._heads = heads
        self._limits = limits
        self._serve = serve
        self._fast = fast
        self._parser = RequestParser(self, heads, limits.head_bytes)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self.write: Callable[[bytes], None] = None  # type: ignore[assignment]
        self._last_known: KnownHead | None = None
        self.peer = ""
        self.expiry = NEVER
        # The request being served, those that wait for it, and the one whose body arrives.
        self._current: HttpRequest | None = None
        self._queue: deque[HttpRequest] = deque()
        self._incoming: HttpRequest | None = None
        # Bytes behind the queue, not parsed yet; or a known head and a part of its body.
        self._unparsed = b""
        self._holds = False
        # Whether no more bytes are taken, and the response to those that were no request.
        self._closed = False
        self._refusal = b""
        # Whether the head being awaited or parsed has its expiry.
        self._head_is_timed = True
        # Bytes of an unwanted body that are still read.
        self._linger_left = 0
        self.reading_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first head."""
        self._transport = transport
        self.write = transport.write
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self.expiry = time.monotonic() + self._limits.head_seconds
        self.connections.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request being served that its client is gone; frees it and the parser."""
        self.connections.leave(self)
        self._closed = True
        self._queue.clear()
        self._unparsed = b""
        self.resume_writing()
        for request in (self._current, self._incoming):
            if request is not None:
                request.lose()
        self._current = self._incoming = None
        self._parser.close()

    def data_received(self, data: bytes) -> None:
        """Serves what was read: at once if it is a known head and its body, else as parsed."""
        was_held = self._holds
        if was_held:
            data = self._release() + data
        elif self._current is not None or self._closed or not self._parser.is_between:
            self._take(data)
            return
        found = self._heads.find(data, self._last_known)
        if found is None:
            self._take(data)
            return
        self._last_known, (size, cuts) = found
        head = self._last_known.head
        missing = size + head.content_length - len(data)
        if missing == 0:
            body = data[size:]
            request = HttpRequest(self, head, cuts, body)
            self._begin(request, body if head.is_plain and not self.write_paused else b"")
        elif 0 < missing < _HIGH_WATER and head.is_plain and not was_held:
            self._hold(data)
        else:
            self._take(data)

    def _hold(self, data: bytes) -> None:
        """Keeps a known head until its body arrives, which many clients send in a second write.

        What is not there at the next look at all connections goes on without its body.
        """
        self._unparsed = data
        self._holds = True
        self.expiry = self.connections.now

    def _release(self) -> bytes:
        data = self._unparsed
        self._unparsed = b""
        self._holds = False
        return data

    def on_head(self, head: ParsedHead, cuts: Cuts) -> None:
        """Begins a request, or lets it wait for those in front."""
        request = self._incoming = HttpRequest(self, head, cuts)
        if self._current is None:
            self._begin(request)
        else:
            self._queue.append(request)

    def on_part(self, data: bytes) -> None:
        """Gives the request a part of its body; drops that of a request which has its response."""
        request = self._incoming
        assert request is not None
        if request.ended:
            self._linger_left -= len(data)
        else:
            request.receive(data)

    def on_end(self) -> None:
        """Ends the body of a request."""
        assert self._incoming is not None
        self._incoming.receive_end()
        self._incoming = None

    def _take(self, data: bytes) -> None:
        """Parses what was read, until a request waits for its turn; the rest waits as bytes."""
        if self._closed:
            return
        data = self._unparsed + data if self._unparsed else data
        at = 0
        try:
            while at < len(data) and not self._queue:
                piece = data if len(data) <= _SLICE else data[at : at + self._slice()]
                at += len(piece)
                self._parser.feed(piece)
        except Malformed as exc:
            self._refuse(exc.text)
            return
        self._unparsed = data[at:]
        self._after_parsing()

    def _slice(self) -> int:
        """Returns the bytes to parse at once: all that is left of a body, in which nobody waits."""
        request = self._incoming
        if request is None or request.ended:
            return _SLICE
        return max(_SLICE, request.head.content_length - request.bytes_read)

    def _after_parsing(self) -> None:
        current = self._current
        if current is None:
            if self._parser.in_head and not self._head_is_timed:
                self.expiry = time.monotonic() + self._limits.head_seconds
                self._head_is_timed = True
        elif current.ended:
            # Its body was unwanted, and is read and dropped.
            if current.arrived:
                self._next()
            elif self._linger_left < 0:
                self._close()
        self._regulate()

    def _refuse(self, text: bytes) -> None:
        """Answers bytes that are no request, behind the requests before them."""
        self._closed = True
        self._refusal = refusal(text, self.connections.date_line)
        broken, current = self._incoming, self._current
        if broken is not None and broken is current:
            # It never gets the rest of its body.
            if not current.begun:
                self.write(self._refusal)
            current.lose()
            self._close()
        elif current is None:
            self.write(self._refusal)
            self._close()
        else:
            if broken is not None:
                self._queue.remove(broken)
            if current.ended:
                self._next()

    def _regulate(self) -> None:
        """Pauses reading while a request waits for its turn, or much of a body to be taken."""
        incoming = self._incoming
        pause = bool(self._queue) or (incoming is not None and incoming.unread > _HIGH_WATER)
        if pause != self.reading_paused and not self._transport.is_closing():
            self.reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _begin(self, request: HttpRequest, body: bytes = b"") -> None:
        """Begins to serve a request, by the fast way if its whole body is given."""
        self._current = request
        self.expiry = NEVER
        self._head_is_timed = False
        if not body or self._fast is None or not self._fast(request, body):
            self.connections.tasks.add(self._loop.create_task(self._run(request)))

    async def _run(self, request: HttpRequest) -> None:
        try:
            await self._serve(request)
        finally:
            self.connections.tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
            self.connections.left.set()
            if not request.ended:
                # Its response was left without its end, which the client sees as broken off.
                self._close()

    def read_on(self) -> None:
        """Reads what the client sends, after the parts of a body were taken."""
        self._regulate()

    def is_last(self) -> bool:
        """Returns whether no request waits behind the one being served."""
        return not self._queue

    def go_on(self, request: HttpRequest) -> None:
        """Goes on behind a response: to the rest of an unwanted body, or to the next request."""
        if not request.arrived and not request.waits_for_leave:
            # A client that is still sending reads no response; closing at once would reset it.
            self._linger_left = self._limits.linger_bytes
            self.expiry = time.monotonic() + self._limits.linger_seconds
            request.drop()
            self._regulate()
        else:
            self._next()

    def _next(self) -> None:
        closes = self._current is not None and self._current.closes
        self._current = None
        if closes:
            self._close()
        elif self._queue:
            self._begin(self._queue.popleft())
            if not self._queue and self._unparsed:
                self._take(b"")
            self._regulate()
        elif self._refusal:
            self.write(self._refusal)
            self._close()
        elif self.connections.stopping:
            self._close()
        else:
            self.expiry = self.connections.now + self._limits.keep_alive_seconds
            if self._parser.in_head or self.reading_paused:
                self._after_parsing()

    def expire(self) -> None:
        """Closes an idle connection, and one whose head or unwanted body takes too long."""
        if self._holds:
            self._take(self._release())
        elif self._closed:
            # Its client does not read the last of its responses.
            self._transport.abort()
        else:
            self._close()

    def stop(self) -> None:
        """Closes the connection as soon as no request on it is being served."""
        if self._holds:
            self._take(self._release())
        if self._current is None or self._current.ended:
            self._close()

    def abort(self) -> None:
        """Closes the connection at once; what is not written yet is lost."""
        self._closed = True
        self._transport.abort()

    def _close(self) -> None:
        self._closed = True
        self.expiry = self.connections.now + self._limits.close_seconds
        self._transport.close()
