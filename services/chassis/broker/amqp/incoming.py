"""The receiving side of one AMQP connection, between the event loop's socket and pika.

Frames are split once: deliveries and confirms go straight to their channels, all other frames reach
pika untouched and in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

import structlog

from services.chassis.broker.amqp import frames as amqp
from services.chassis.broker.amqp.outgoing import Outgoing
from services.chassis.broker.port import Message

# Called with delivery tag, redelivered, routing key and message.
OnDelivery: TypeAlias = Callable[[int, bool, str, Message], None]
# Called with delivery tag, multiple and accepted.
OnConfirm: TypeAlias = Callable[[int, bool, bool], None]
# Makes a message of a content header's packed properties and a body, whatever the properties are.
Unpack: TypeAlias = Callable[[bytes, bytes], Message]
# Takes a frame's payload: the bytes that hold it, its start and its end.
_Take: TypeAlias = Callable[[bytes, int, int], None]

_TAG_AND_BITS = Struct(">QB")
# The properties that the platform sends. A message with any other is left to pika.
_OURS = (
    amqp.HEADERS
    | amqp.DELIVERY_MODE
    | amqp.CORRELATION_ID
    | amqp.REPLY_TO
    | amqp.EXPIRATION
    | amqp.MESSAGE_ID
    | amqp.APP_ID
)
_TEXTS = tuple(enumerate((amqp.CORRELATION_ID, amqp.REPLY_TO, amqp.EXPIRATION, amqp.MESSAGE_ID)))

_log = structlog.get_logger("broker")


class FrameError(Exception):
    """The stream does not hold AMQP 0-9-1; it cannot be read any further."""


class Incoming(asyncio.Protocol):
    """The loop's protocol for the socket.

    `on_made` is told of the open connection before anything is read from it. `outgoing` is the
    other direction, once the connection is made.
    """

    outgoing: Outgoing

    def __init__(
        self,
        protocol: Any,
        on_made: Callable[[Incoming], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._protocol = protocol
        self._on_made = on_made
        self._clock = clock
        self.reader = FrameReader(protocol.data_received)
        self.bytes_received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands the open connection to pika."""
        self.outgoing = Outgoing(self._protocol, transport, self._clock)
        self._protocol.connection_made(self.outgoing)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """Reads the frames; ends the connection when they are none."""
        if self.outgoing.aborted:
            return
        self.bytes_received += len(data)
        try:
            self.reader.feed(data)
        except Exception as exc:
            _log.exception("broker_stream_unreadable")
            self.outgoing.abort(exc)

    def eof_received(self) -> bool | None:
        """Tells pika that the broker sends no more."""
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells pika why the connection ended."""
        self.outgoing.lost()
        self._protocol.connection_lost(self.outgoing.error or exc)


class FrameReader:
    """Splits what one connection receives into frames; `pass_on` takes those that are pika's."""

    def __init__(self, pass_on: Callable[[bytes], None]) -> None:
        self._pass_on = pass_on
        self._channels: dict[int, _Takers] = {}
        self._incomplete = b""

    def take_deliveries(self, channel: int, on_delivery: OnDelivery, unpack: Unpack) -> None:
        """Gives the channel's deliveries to `on_delivery` from now on.

        `unpack` reads the messages that this module cannot.
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
        message = unpack(self._properties, body) or self._unpack(self._properties, body)
        self._on_delivery(self._tag, self._redelivered, self._routing_key, message)


def unpack(properties: bytes, body: bytes) -> Message | None:
    """Returns the message of a body and its packed properties.

    Returns None if there is a property that the platform does not send, or a header that is no
    text; pika can read those.
    """
    flags = properties[0] << 8 | properties[1]
    if flags & ~_OURS:
        return None
    at = 2
    headers: dict[str, str] = {}
    if flags & amqp.HEADERS:
        at += 4 + amqp.LONG.unpack_from(properties, at)[0]
        if not _unpack_table(properties, 6, at, headers):
            return None
    if flags & amqp.DELIVERY_MODE:
        at += 1
    texts = ["", "", "", ""]
    for place, flag in _TEXTS:
        if flags & flag:
            after = at + 1 + properties[at]
            texts[place] = properties[at + 1 : after].decode(errors="replace")
            at = after
    correlation_id, reply_to, expiration, message_id = texts
    return Message(body, headers, reply_to, correlation_id, int(expiration or 0), message_id)


def _unpack_table(properties: bytes, at: int, end: int, headers: dict[str, str]) -> bool:
    """Returns whether all values of the table are text; adds them to `headers`."""
    while at < end:
        after = at + 1 + properties[at]
        if properties[after] != ord("S"):
            return False
        name = properties[at + 1 : after].decode(errors="replace")
        value = after + 5
        at = value + amqp.LONG.unpack_from(properties, after + 1)[0]
        headers[name] = properties[value:at].decode(errors="replace")
    return True
