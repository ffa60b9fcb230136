"""The socket under an AMQP connection: the event loop's own transport, and writes gathered when
there are many.

pika's transports ask the loop to say when the socket can be written, for each send anew, and read
until it is empty; the loop's transport writes at once and is registered with the poller once, for
reading.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from services.chassis.broker.amqp.frame_reader import Inlet

# A write so soon after another is one of many: it waits for the end of the turn, with those that
# follow. A lone one is in the socket when `write` returns.
_BURST_SECONDS = 100e-6

_log = structlog.get_logger("broker")


class Stream(asyncio.Protocol):
    """Lies between the loop's transport and pika's protocol, for which it is the transport in turn.

    `on_made` is told of the open connection before anything is read from it.
    """

    def __init__(
        self,
        protocol: Any,
        on_made: Callable[[Stream], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._protocol, self._on_made, self._clock = protocol, on_made, clock
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._wrote_at = -math.inf
        self._error: BaseException | None = None
        self._aborted = False
        self.inlet = Inlet(protocol.data_received)
        self.bytes_received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._protocol.connection_made(self)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if self._aborted:
            return
        self.bytes_received += len(data)
        try:
            self.inlet.feed(data)
        except Exception as exc:
            _log.exception("broker connection unreadable")
            self.abort(exc)

    def eof_received(self) -> bool | None:
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._protocol.connection_lost(self._error or exc)

    def write(self, data: bytes) -> None:
        """Sends; what was sent last is lost if the connection ends."""
        now = self._clock()
        if self._gathered:
            self._gathered.append(data)
        elif now - self._wrote_at < _BURST_SECONDS:
            self._gathered.append(data)
            self._loop.call_soon(self._flush)
        elif self._transport is not None:
            self._transport.write(data)
        self._wrote_at = now

    def write_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Sends a large message's pieces, one after the other and none of them copied."""
        self._flush()
        if self._transport is not None:
            self._transport.writelines(pieces)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and self._transport is not None:
            self._transport.write(b"".join(gathered))

    def abort(self, error: BaseException | None = None) -> None:
        """Ends the connection without a word to the peer; `error` becomes the reason unless pika
        knows one.
        """
        if self._transport is not None and not self._aborted:
            self._aborted, self._error = True, error
            self._transport.abort()

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
