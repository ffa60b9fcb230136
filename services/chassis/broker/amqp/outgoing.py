"""The sending side of one AMQP connection: pika's transport on the event loop's own.

A message is packed in one step, to the bytes that pika makes from one object per frame, method and
set of properties. Writes that follow each other closely leave in one piece. pika's own transports
ask the loop for each send whether the socket can be written, which costs five system calls; the
loop's transport writes at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from services.chassis.broker.amqp import frames as amqp
from services.chassis.broker.port import Message

# Seconds. A write sooner than this after another one waits for the end of the loop's turn, to leave
# with those that follow; a lone write is in the socket when `write` returns.
_BURST_SECONDS = 100e-6
# Delivery mode 1: the broker keeps the message in memory only.
_TRANSIENT = b"\x01"
# Bytes. A larger body is sent in pieces instead of being copied into one string with its frames.
_JOINED_BYTES = 64 * 1024


class Outgoing:
    """The sending side of an open connection; what is written after its end goes nowhere."""

    def __init__(
        self, protocol: Any, transport: Any, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._clock = clock
        self._gathered: list[bytes] = []
        self._wrote_at = -math.inf
        self.aborted = False
        # Why it was aborted.
        self.error: BaseException | None = None

    def publish(
        self,
        channel: int,
        exchange: str,
        key: str,
        message: Message,
        *,
        mandatory: bool,
        mark: str,
        frame_max: int,
    ) -> None:
        """Sends a message; a large body in pieces, one after the other, without a copy.

        `mark` travels as the application's id. `frame_max` is the largest frame in bytes that the
        broker takes. Raises ValueError for a name, mark or property of more than 255 bytes.
        """
        body = message.body
        head = _publish_method(channel, exchange, key, mandatory) + _content_header(
            channel, message, mark
        )
        if not body:
            self.write(head)
        elif len(body) <= min(frame_max - amqp.OVERHEAD, _JOINED_BYTES):
            frame = amqp.FRAME.pack(amqp.BODY, channel, len(body))
            self.write(b"".join((head, frame, body, amqp.END)))
        else:
            self.write_all([head, *_body_frames(channel, body, frame_max)])

    def write(self, data: bytes) -> None:
        """Sends; the last bytes are lost if the connection ends."""
        now = self._clock()
        if self._gathered:
            self._gathered.append(data)
        elif now - self._wrote_at < _BURST_SECONDS:
            asyncio.get_running_loop().call_soon(self._flush)
            self._gathered.append(data)
        elif self._transport is not None:
            self._transport.write(data)
        self._wrote_at = now

    def write_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Sends pieces one after the other, without a copy."""
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
        if self._transport is not None and not self.aborted:
            self.aborted = True
            self.error = error
            self._transport.abort()

    def lost(self) -> None:
        """Drops the transport, which is closed."""
        self._transport = None

    def get_protocol(self) -> Any:
        """Returns pika's protocol."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """Returns the number of bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


def _body_frames(channel: int, body: bytes, frame_max: int) -> Iterator[bytes | memoryview]:
    view = memoryview(body)
    for at in range(0, len(body), frame_max - amqp.OVERHEAD):
        chunk = view[at : at + frame_max - amqp.OVERHEAD]
        yield from (amqp.FRAME.pack(amqp.BODY, channel, len(chunk)), chunk, amqp.END)


# A process publishes to a few queues again and again, so their methods are packed once.
@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    payload = b"".join(
        (
            amqp.METHOD_ID.pack(amqp.PUBLISH),
            bytes(2),
            _short(exchange),
            _short(key),
            bytes((mandatory,)),
        )
    )
    return amqp.FRAME.pack(amqp.METHOD, channel, len(payload)) + payload + amqp.END


def _content_header(channel: int, message: Message, mark: str) -> bytes:
    flags, properties = amqp.DELIVERY_MODE, [_TRANSIENT]
    if message.headers:
        flags |= amqp.HEADERS
        properties.insert(0, _packed_table(message.headers.items()))
    if message.correlation_id:
        flags |= amqp.CORRELATION_ID
        properties.append(_short(message.correlation_id))
    if message.reply_to:
        flags |= amqp.REPLY_TO
        properties.append(_short(message.reply_to))
    if message.expiration_ms:
        flags |= amqp.EXPIRATION
        properties.append(_short(str(message.expiration_ms)))
    if message.message_id:
        flags |= amqp.MESSAGE_ID
        properties.append(_short(message.message_id))
    if mark:
        flags |= amqp.APP_ID
        properties.append(_short(mark))
    packed = b"".join(properties)
    size = amqp.CONTENT.size + len(packed)
    content = amqp.CONTENT.pack(amqp.BASIC << 16, len(message.body), flags)
    return b"".join((amqp.FRAME.pack(amqp.HEADER, channel, size), content, packed, amqp.END))


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _packed_table(items: Iterable[tuple[str, str]]) -> bytes:
    fields = bytearray()
    for name, value in items:
        encoded = value.encode()
        fields += b"".join((_short(name), b"S", amqp.LONG.pack(len(encoded)), encoded))
    return amqp.LONG.pack(len(fields)) + fields
