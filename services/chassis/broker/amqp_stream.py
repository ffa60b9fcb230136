"""The socket under an AMQP connection: the event loop's own transport, which sends what one turn wrote in one go.

pika's transports ask the loop to say when the socket can be written, for each send anew, and read until it is empty;
the loop's transport writes at once and is registered with the poller once, for reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from services.chassis.broker.amqp_inlet import Inlet

_log = structlog.get_logger("broker")


class Stream(asyncio.Protocol):
    """Lies between the loop's transport and pika's protocol, for which it is the transport in turn.

    `on_made` is told of the open connection before anything is read from it.
    """

    def __init__(self, protocol: Any, on_made: Callable[[Stream], None]) -> None:
        self._protocol, self._on_made = protocol, on_made
        self._transport: Any = None
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
        if self._transport is not None:
            self._transport.write(data)

    def write_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Sends the pieces one after the other."""
        if self._transport is not None:
            self._transport.writelines(pieces)

    def abort(self, error: BaseException | None = None) -> None:
        """Ends the connection without a word to the peer; `error` becomes the reason unless pika knows one."""
        if self._transport is not None and not self._aborted:
            self._aborted, self._error = True, error
            self._transport.abort()

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
