"""What comes in on an AMQP connection: deliveries and confirms go straight to their channels, the
rest to pika.

Pure. A frame is looked at once; whatever is not a delivery or a confirm of a channel that asked for
them is passed on untouched, whole and in its order, as if there had been nothing else in the
stream.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

from services.chassis.broker.amqp import frames as amqp
from services.chassis.broker.port import Message

# Called with (tag, redelivered, routing key, message).
OnDelivery: TypeAlias = Callable[[int, bool, str, Message], None]
# Called with (tag, multiple, accepted).
OnConfirm: TypeAlias = Callable[[int, bool, bool], None]
# Makes a message of a content header's packed properties and a body, whatever properties there are.
Unpack: TypeAlias = Callable[[bytes, bytes], Message]
# Takes a frame's payload: the bytes that hold it, where it starts, where it ends.
_Take: TypeAlias = Callable[[bytes, int, int], None]

_USUAL = (
    amqp.HEADERS
    | amqp.DELIVERY_MODE
    | amqp.CORRELATION_ID
    | amqp.REPLY_TO
    | amqp.EXPIRATION
    | amqp.MESSAGE_ID
    | amqp.APP_ID
)
_TEXTS = tuple(enumerate((amqp.CORRELATION_ID, amqp.REPLY_TO, amqp.EXPIRATION, amqp.MESSAGE_ID)))
_TAG_AND_BITS = Struct(">QB")


class FrameError(Exception):
    """The stream does not hold what AMQP 0-9-1 allows; it cannot be read any further."""


class Inlet:
    """Splits one connection's stream; `pass_on` takes pika's share. `taken` counts the bytes of
    ours.
    """

    def __init__(self, pass_on: Callable[[bytes], None]) -> None:
        self._pass_on = pass_on
        self._ports: dict[int, _Port] = {}
        self._incomplete = b""
        self.taken = 0

    def deliver(self, channel: int, on_delivery: OnDelivery, unpack: Unpack) -> None:
        """From now on the channel's deliveries go there; `unpack` reads properties that are unusual
        here.
        """
        content = _Content(on_delivery, unpack)
        self._port(channel).content = content
        self._port(channel).methods[amqp.DELIVER] = content.begin

    def confirm(self, channel: int, on_confirm: OnConfirm) -> None:
        """From now on the channel's confirms go there."""

        def take(data: bytes, at: int, _: int) -> None:
            tag, multiple = _TAG_AND_BITS.unpack_from(data, at + 4)
            on_confirm(tag, bool(multiple & 1), data[at + 3] == amqp.ACK & 0xFF)

        self._port(channel).methods |= {amqp.ACK: take, amqp.NACK: take}

    def forget(self, channel: int) -> None:
        """The channel is closed; its number may come back as another's."""
        self._ports.pop(channel, None)

    def feed(self, data: bytes) -> None:
        """Takes what was read. Raises FrameError for what is no AMQP, and whatever `pass_on` and
        callbacks raise.
        """
        if self._incomplete:
            data = self._incomplete + data
        at = passed = 0
        end = len(data)
        while end - at >= amqp.OVERHEAD:
            kind, channel, size = amqp.FRAME.unpack_from(data, at)
            if kind > amqp.HEARTBEAT:
                # No frame: the greeting of a server that speaks another version. pika knows what to
                # make of it.
                at = end
                break
            after = at + amqp.OVERHEAD + size
            if after > end:
                break
            port = self._ports.get(channel)
            take = port.taker(kind, data, at + amqp.FRAME.size) if port is not None else None
            if take is not None:
                if passed < at:
                    self._pass_on(data[passed:at])
                passed = after
                self.taken += after - at
                if data[after - 1] != amqp.END[0]:
                    raise FrameError("a frame has no end")
                take(data, at + amqp.FRAME.size, after - 1)
            at = after
        # Kept before pika is called: it may end the connection, which says so to those who are
        # still to be told.
        self._incomplete = data[at:]
        if passed < at:
            self._pass_on(data[passed:at])

    def _port(self, channel: int) -> _Port:
        return self._ports.setdefault(channel, _Port())


class _Port:
    """A channel's takers of frames."""

    __slots__ = ("content", "methods")

    def __init__(self) -> None:
        self.methods: dict[int, _Take] = {}
        self.content: _Content | None = None

    def taker(self, kind: int, data: bytes, at: int) -> _Take | None:
        """Who takes this frame; None for pika."""
        if kind == amqp.METHOD:
            return self.methods.get(amqp.METHOD_ID.unpack_from(data, at)[0])
        if self.content is None or not self.content.begun:
            return None  # of a message that came back
        return self.content.header if kind == amqp.HEADER else self.content.body


class _Content:
    """A delivery that is coming in: its method, its header, and as many bodies as it takes."""

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
        self._on_delivery, self._unpack = on_delivery, unpack
        self.begun = False
        self._tag, self._redelivered, self._routing_key = 0, False, ""
        self._properties, self._missing = b"", -1
        self._chunks: list[bytes] = []

    def begin(self, data: bytes, at: int, end: int) -> None:
        """The method: consumer tag, delivery tag, redelivered, exchange, routing key."""
        at += 5 + data[at + 4]
        self._tag, bits = _TAG_AND_BITS.unpack_from(data, at)
        at += 10 + data[at + 9]
        self._redelivered = bool(bits & 1)
        self._routing_key = data[at + 1 : at + 1 + data[at]].decode(errors="replace")
        self._chunks, self._missing, self.begun = [], -1, True

    def header(self, data: bytes, at: int, end: int) -> None:
        """The content header: the body's size and the properties."""
        _, self._missing, _ = amqp.CONTENT.unpack_from(data, at)
        self._properties = data[at + amqp.CONTENT.size - 2 : end]
        if not self._missing:
            self._finish(b"")

    def body(self, data: bytes, at: int, end: int) -> None:
        """A piece of the body."""
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
        message = unpacked(self._properties, body) or self._unpack(self._properties, body)
        self._on_delivery(self._tag, self._redelivered, self._routing_key, message)


def unpacked(properties: bytes, body: bytes) -> Message | None:
    """The message of a body and its packed properties; None if there are any that the platform does
    not send.
    """
    flags = properties[0] << 8 | properties[1]
    if flags & ~_USUAL:
        return None
    at = 2
    headers: dict[str, str] = {}
    if flags & amqp.HEADERS:
        at += 4 + amqp.LONG.unpack_from(properties, at)[0]
        if not _read_table(properties, 6, at, headers):
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


def _read_table(properties: bytes, at: int, end: int, headers: dict[str, str]) -> bool:
    """Whether all values of the table are strings; reads them as long as they are."""
    while at < end:
        after = at + 1 + properties[at]
        if properties[after] != ord("S"):
            return False
        name = properties[at + 1 : after].decode(errors="replace")
        value = after + 5
        at = value + amqp.LONG.unpack_from(properties, after + 1)[0]
        headers[name] = properties[value:at].decode(errors="replace")
    return True
