"""One HTTP request as ASGI gives it: headers, a bounded body, and whether its sender is still
there.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from services.chassis.context import new_request_id
from stellwerk.wire.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidInput,
    TooLarge,
    UnsupportedEncoding,
)
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

MAX_HEADERS = 100
# Where the scope's extensions hold the sender.
SENDER = "stellwerk.sender"
# Below this a body is inflated on the loop; above it, in a thread.
_INFLATE_IN_THREAD = 16 * 1024
_PIECE = 64 * 1024
_LINGER_SECONDS = 15.0
# Headers that announce a body, and the one of a sender that waits for leave to send it (RFC 9110,
# 10.1.1).
_BODY = frozenset({b"content-length", b"transfer-encoding"})
_ASKS = b"expect"
# gzip, and what HTTP calls deflate: zlib's own format.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_GRPC_FORM, _PLAIN_FORM = b"grpc-timeout", b"x-request-timeout"
_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_REQUEST_ID_LENGTH}}}")
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SECONDS = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,9})?")


class Sender(Protocol):
    """Who sends a request, as far as the server goes beyond ASGI: what it knows at once, and whole
    answers at once.
    """

    # Called once, when the sender goes away before it has its answer.
    on_gone: Callable[[], None] | None

    @property
    def gone(self) -> bool:
        """It went away."""

    @property
    def whole(self) -> bool:
        """All of the body has arrived, so that nobody has to wait for it."""

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Sends a whole answer, instead of ASGI's messages."""

    def close(self) -> None:
        """Closes the connection: what else it sends is not wanted."""


class Request:
    """A request being served. Not to be shared between tasks."""

    __slots__ = (
        "_receive",
        "_task",
        "bytes_read",
        "complete",
        "gone",
        "header_count",
        "headers",
        "method",
        "peer",
        "query",
        "raw_path",
        "sender",
    )

    def __init__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.peer: str = scope["client"][0] if scope.get("client") else ""
        # Of a header given twice the first counts; the one that smuggling would like to differ in
        # is the body's length, which the parser has checked.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.header_count = len(scope["headers"])
        self.gone = False
        self.bytes_read = 0
        self.complete = False
        self._receive = receive
        # Taken out, because what the server keeps of the request would else refer to itself and
        # wait for the collector.
        self.sender: Sender = scope["extensions"].pop(SENDER)
        self._task: asyncio.Task[Any] | None = None

    def header(self, name: bytes) -> str:
        """The header's value, "" if it is not there."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def request_id(self) -> str:
        """The caller's own id if it can be logged as it is, else a fresh one."""
        if b"x-request-id" in self.headers and _REQUEST_ID.fullmatch(
            given := self.header(b"x-request-id")
        ):
            return given
        return new_request_id()

    def timeout(self, default: float, cap: float) -> float:
        """Seconds this call may take: Grpc-Timeout ("100m") or X-Request-Timeout (seconds), never
        above the cap.
        """
        if _GRPC_FORM not in self.headers and _PLAIN_FORM not in self.headers:
            return min(default, cap)
        grpc_form, plain = self.header(_GRPC_FORM), self.header(_PLAIN_FORM)
        if grpc_form:
            match = _GRPC_TIMEOUT.fullmatch(grpc_form)
            seconds = int(match.group(1)) * _GRPC_UNITS[match.group(2)] if match else 0.0
        elif plain:
            seconds = float(plain) if _SECONDS.fullmatch(plain) else 0.0
        else:
            return min(default, cap)
        if seconds <= 0:
            raise InvalidInput(
                "a timeout is a positive number: 'Grpc-Timeout: 500m' or 'X-Request-Timeout: 0.5'"
            )
        return min(seconds, cap)

    async def body(self, limit: int, deadline: float) -> bytes:
        """The whole body, decompressed, at most `limit` bytes of it. Raises TooLarge, InvalidInput,
        DeadlinePassed.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        window_bits = self._window_bits()
        # The usual body is there before anybody asks for it, and there is no end of waiting to
        # watch for.
        if self.sender.whole and not self.complete:
            whole = await self._part()
            if len(whole) > limit:
                raise _too_large(limit)
        else:
            whole = await self._gathered(limit, deadline)
        if window_bits is None or not whole:
            return whole
        if len(whole) < _INFLATE_IN_THREAD:
            return inflate(whole, window_bits, limit)
        return await asyncio.to_thread(inflate, whole, window_bits, limit)

    async def _gathered(self, limit: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async for part in self._parts():
                    if self.bytes_read > limit:
                        raise _too_large(limit)
                    parts.append(part)
        except TimeoutError:
            raise DeadlinePassed("the body did not arrive before the deadline") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """The body as it comes, decompressed, in pieces of about `size` bytes, in constant
        memory.
        """
        window_bits = self._window_bits()
        inflater = zlib.decompressobj(window_bits) if window_bits is not None else None
        waiting = bytearray()
        async for part in self._parts():
            data = part
            while True:
                if inflater is not None:
                    data = _inflate_piece(inflater, data, size)
                waiting += data
                if len(waiting) >= size:
                    yield bytes(waiting)
                    waiting.clear()
                if inflater is None or not inflater.unconsumed_tail:
                    break
                data = inflater.unconsumed_tail
        if inflater is not None and self.bytes_read and not inflater.eof:
            raise InvalidInput("the compressed body breaks off before its end")
        if waiting:
            yield bytes(waiting)

    @property
    def sends_on(self) -> bool:
        """The sender is still at its body, and does not wait for leave to begin with it."""
        announced = not _BODY.isdisjoint(self.headers) and _ASKS not in self.headers
        return announced and not self.complete and not self.gone

    async def linger(self, limit: int) -> None:
        """Takes what is still sent and drops it, for a while: who cannot send on may never read the
        answer.
        """
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
            if part := await self._part():
                yield part

    async def _part(self) -> bytes:
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
        encoding = self.header(b"content-encoding").lower()
        if encoding in ("", "identity"):
            return None
        if encoding not in _WINDOW_BITS:
            raise UnsupportedEncoding(
                "a body may be compressed with gzip or deflate, with nothing else"
            )
        return _WINDOW_BITS[encoding]

    def watch(self) -> None:
        """From now on the sender's going away cancels this task."""
        self._task = asyncio.current_task()
        self.sender.on_gone = self._cancel
        if self.sender.gone:
            self._cancel()

    def unwatch(self) -> None:
        """Ends what `watch` began."""
        self.sender.on_gone = self._task = None

    def _cancel(self) -> None:
        self.gone = True
        if self._task is not None:
            self._task.cancel()


def inflate(data: bytes, window_bits: int, limit: int) -> bytes:
    """Decompresses at most `limit` bytes. A bomb is found by counting, before anything of it is
    kept.
    """
    inflater, size, rest = zlib.decompressobj(window_bits), 0, data
    while rest and not inflater.eof:
        size += len(_inflate_piece(inflater, rest, _PIECE))
        if size > limit:
            raise _too_large(limit)
        rest = inflater.unconsumed_tail
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput("the compressed body breaks off before its end, or goes on after it")
    return zlib.decompress(data, wbits=window_bits, bufsize=max(1, size))


def _inflate_piece(inflater: zlib._Decompress, data: bytes, size: int) -> bytes:
    try:
        return inflater.decompress(data, size)
    except zlib.error:
        raise InvalidInput("the body is not compressed as its Content-Encoding says") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit} bytes, the most that is taken here", limit=limit
    )
