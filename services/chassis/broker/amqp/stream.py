"""The byte stream of one AMQP connection, between the event loop's socket and pika.

Frames that come in are split once: deliveries and confirms go straight to their channels, all other
frames reach pika untouched and in order. Writes that follow each other closely leave in one piece.
pika's own transports ask the loop for each send whether the socket can be written, which costs five
system calls; the loop's transport writes at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, TypeAlias

import structlog

from services.chassis.broker.amqp import frames as amqp
from services.chassis.broker.port import Message

# Called with delivery tag, redelivered, routing key and message.
OnDelivery: TypeAlias = Callable[[int, bool, str, Message], None]
# Called with delivery tag, multiple and accepted.
OnConfirm: TypeAlias = Callable[[int, bool, bool], None]
# Makes a message of a content header's packed properties and a body, whatever the properties are.
Unpack: TypeAlias = Callable[[bytes, bytes], Message]
# Takes a frame's payload: the bytes that hold it, its start and its end.
_Take: TypeAlias = Callable[[bytes, int, int], None]

# Seconds. A write sooner than this after another one waits for the end of the loop's turn, to leave
# with those that follow; a lone write is in the socket when `write` returns.
_BURST_SECONDS = 100e-6
_TAG_AND_BITS = Struct(">QB")

_log = structlog.get_logger("broker")


class FrameError(Exception):
    """The stream does not hold AMQP 0-9-1; it cannot be read any further."""


class Stream(asyncio.Protocol):
    """The loop's protocol for the socket, and pika's transport for the same socket.

    `on_made` is told of the open connection before anything is read from it.
    """

    def __init__(
        self,
        protocol: Any,
        on_made: Callable[[Stream], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._protocol = protocol
        self._on_made = on_made
        self._clock = clock
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._wrote_at = -math.inf
        self._error: BaseException | None = None
        self._aborted = False
        self.reader = FrameReader(protocol.data_received)
        self.bytes_received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands the open connection to pika."""
        self._transport = transport
        self._protocol.connection_made(self)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """Reads the frames; ends the connection when they are none."""
        if self._aborted:
            return
        self.bytes_received += len(data)
        try:
            self.reader.feed(data)
        except Exception as exc:
            _log.exception("broker_stream_unreadable")
            self.abort(exc)

    def eof_received(self) -> bool | None:
        """Tells pika that the broker sends no more."""
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells pika why the connection ended."""
        self._transport = None
        self._protocol.connection_lost(self._error or exc)

    def write(self, data: bytes) -> None:
        """Sends; the last bytes are lost if the connection ends."""
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
        """Sends the pieces of a large message one after the other, without a copy."""
        self._flush()
        if self._transport is not None:
            self._transport.writelines(pieces)

    def _flush(self) -> None:
        gathered = self._gathered
        self._gathered = []
        if gathered and self._transport is not None:
            self._transport.write(b"".join(gathered))

    def abort(self, error: BaseException | None = None) -> None:
        """Ends the connection without telling the broker; `error` is the reason that pika gets."""
        if self._transport is not None and not self._aborted:
            self._aborted = True
            self._error = error
            self._transport.abort()

    def get_protocol(self) -> Any:
        """Returns pika's protocol."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """Returns the number of bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


class FrameReader:
    """Splits what one connection receives into frames; `pass_on` takes those that are pika's."""

    def __init__(self, pass_on: Callable[[bytes], None]) -> None:
        self._pass_on = pass_on
        self._channels: dict[int, _Takers] = {}
        self._incomplete = b""

    def take_deliveries(self, channel: int, on_delivery: OnDelivery, unpack: Unpack) -> None:
        """Gives the channel's deliveries to `on_delivery` from now on.

        `unpack` reads the messages that `frames.unpack` cannot.
        """
        content = _Content(on_delivery, unpack)
        takers = self._channels.setdefault(channel, _Takers())
        takers.content = content
        takers.methods[amqp.DELIVER] = content.begin

    def take_confirms(self, channel: int, on_confirm: OnConfirm) -> None:
        """Gives the channel's confirms to `on_confirm` from now on."""

        def take(data: bytes, at: int, _: int) -> None:
            tag, multiple = _TAG_AND_BITS.unpack_from(data, at + 4)
            on_confirm(tag, bool(multiple & 1), data[at + 3] == amqp.ACK & 0xFF)

        takers = self._channels.setdefault(channel, _Takers())
        takers.methods |= {amqp.ACK: take, amqp.NACK: take}

    def forget(self, channel: int) -> None:
        """Gives the channel's frames to pika again: it is closed, and its number may be reused."""
        self._channels.pop(channel, None)

    def feed(self, data: bytes) -> None:
        """Reads the next bytes; keeps an incomplete frame for the next call.

        Raises FrameError if they are no AMQP, and whatever the callbacks raise.
        """
        if self._incomplete:
            data = self._incomplete + data
        at = passed = 0
        end = len(data)
        while end - at >= amqp.OVERHEAD:
            kind, channel, size = amqp.FRAME.unpack_from(data, at)
            if kind > amqp.HEARTBEAT:
                # No frame but the greeting of a server of another version, which pika understands.
                at = end
                break
            after = at + amqp.OVERHEAD + size
            if after > end:
                break
            takers = self._channels.get(channel)
            take = takers.of(kind, data, at + amqp.FRAME.size) if takers is not None else None
            if take is not None:
                if passed < at:
                    self._pass_on(data[passed:at])
                passed = after
                if data[after - 1] != amqp.END[0]:
                    raise FrameError("a frame has no end")
                take(data, at + amqp.FRAME.size, after - 1)
            at = after
        # Kept before pika is called: it may end the connection, and tells those who wait at once.
        self._incomplete = data[at:]
        if passed < at:
            self._pass_on(data[passed:at])


class _Takers:
    """The takers of one channel's frames."""

    __slots__ = ("content", "methods")

    def __init__(self) -> None:
        self.methods: dict[int, _Take] = {}
        self.content: _Content | None = None

    def of(self, kind: int, data: bytes, at: int) -> _Take | None:
        """Returns the taker of a frame, None for pika."""
        if kind == amqp.METHOD:
            return self.methods.get(amqp.METHOD_ID.unpack_from(data, at)[0])
        if self.content is None or not self.content.begun:
            return None  # the content of a returned message
        return self.content.header if kind == amqp.HEADER else self.content.body


class _Content:
    """A delivery that is being received: a method, a header, and any number of bodies."""

    __slots__ = (
        "_chunks",
        "_missing",
        "_on_delivery",
        "_properties",
        "_redelivered",
        "_routing_key",
        "_tag",
        "_unpack",
        "begun",
    )

    def __init__(self, on_delivery: OnDelivery, unpack: Unpack) -> None:
        self._on_delivery = on_delivery
        self._unpack = unpack
        self.begun = False
        self._tag = 0
        self._redelivered = False
        self._routing_key = ""
        self._properties = b""
        self._missing = -1
        self._chunks: list[bytes] = []

    def begin(self, data: bytes, at: int, end: int) -> None:
        """Reads the method: consumer tag, delivery tag, redelivered, exchange, routing key."""
        at += 5 + data[at + 4]
        self._tag, bits = _TAG_AND_BITS.unpack_from(data, at)
        at += 10 + data[at + 9]
        self._redelivered = bool(bits & 1)
        self._routing_key = data[at + 1 : at + 1 + data[at]].decode(errors="replace")
        self._chunks = []
        self._missing = -1
        self.begun = True

    def header(self, data: bytes, at: int, end: int) -> None:
        """Reads the content header: the body's size and the properties."""
        _, self._missing, _ = amqp.CONTENT.unpack_from(data, at)
        self._properties = data[at + amqp.CONTENT.size - 2 : end]
        if not self._missing:
            self._finish(b"")

    def body(self, data: bytes, at: int, end: int) -> None:
        """Reads a part of the body. Raises FrameError for more bytes than the header announced."""
        self._missing -= end - at
        if self._missing < 0:
            raise FrameError("a body is longer than its header says")
        if not self._missing and not self._chunks:
            self._finish(data[at:end])
            return
        self._chunks.append(data[at:end])
        if not self._missing:
            self._finish(b"".join(self._chunks))

    def _finish(self, body: bytes) -> None:
        self.begun = False
        self._chunks = []
        message = amqp.unpack(self._properties, body) or self._unpack(self._properties, body)
        self._on_delivery(self._tag, self._redelivered, self._routing_key, message)
