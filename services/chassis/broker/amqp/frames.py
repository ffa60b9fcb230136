"""The frames that every message costs, packed in one step: AMQP 0-9-1's publish with its content,
and acknowledge.

Pure. pika makes the same bytes from an object for each frame, method and set of properties.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct

from services.chassis.broker.port import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
BASIC = 60
PUBLISH, DELIVER, ACK, NACK = ((BASIC << 16) | method for method in (40, 60, 80, 120))
# Which properties are there, in the order in which they follow.
HEADERS, DELIVERY_MODE, CORRELATION_ID, REPLY_TO = 1 << 13, 1 << 12, 1 << 10, 1 << 9
EXPIRATION, MESSAGE_ID, APP_ID = 1 << 8, 1 << 7, 1 << 3
END = b"\xce"
# A frame is kind, channel and size, that many bytes, and the end.
FRAME = Struct(">BHI")
OVERHEAD = FRAME.size + len(END)
METHOD_ID = Struct(">I")
# A content header: class and weight, the body's size, which properties follow.
CONTENT = Struct(">IQH")
LONG = Struct(">I")
_SETTLEMENT = Struct(">BHIIQBB")
_TRANSIENT = b"\x01"
# A larger body is not copied into one string with what goes around it.
_JOINED_BYTES = 64 * 1024


def publish(
    channel: int,
    exchange: str,
    key: str,
    message: Message,
    *,
    mandatory: bool,
    mark: str,
    frame_max: int,
) -> bytes | list[bytes | memoryview]:
    """A publish with its content; that of a large body in pieces, to be sent one after the other.

    `mark` travels as the application's id. Raises ValueError for a name, mark or property of more
    than 255 bytes.
    """
    body = message.body
    head = _publish_method(channel, exchange, key, mandatory) + _content_header(
        channel, message, mark
    )
    if not body:
        return head
    if len(body) <= min(frame_max - OVERHEAD, _JOINED_BYTES):
        return b"".join((head, FRAME.pack(BODY, channel, len(body)), body, END))
    pieces: list[bytes | memoryview] = [head]
    view = memoryview(body)
    for at in range(0, len(body), frame_max - OVERHEAD):
        chunk = view[at : at + frame_max - OVERHEAD]
        pieces += [FRAME.pack(BODY, channel, len(chunk)), chunk, END]
    return pieces


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Acknowledges a delivery or, with `multiple`, all up to it."""
    return _SETTLEMENT.pack(METHOD, channel, 13, ACK, tag, multiple, END[0])


# The same few queues again and again.
@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    payload = b"".join(
        (METHOD_ID.pack(PUBLISH), bytes(2), _short(exchange), _short(key), bytes((mandatory,)))
    )
    return FRAME.pack(METHOD, channel, len(payload)) + payload + END


def _content_header(channel: int, message: Message, mark: str) -> bytes:
    flags, properties = DELIVERY_MODE, [_TRANSIENT]
    if message.headers:
        flags |= HEADERS
        properties.insert(0, _packed_table(message.headers.items()))
    if message.correlation_id:
        flags |= CORRELATION_ID
        properties.append(_short(message.correlation_id))
    if message.reply_to:
        flags |= REPLY_TO
        properties.append(_short(message.reply_to))
    if message.expiration_ms:
        flags |= EXPIRATION
        properties.append(_short(str(message.expiration_ms)))
    if message.message_id:
        flags |= MESSAGE_ID
        properties.append(_short(message.message_id))
    if mark:
        flags |= APP_ID
        properties.append(_short(mark))
    packed = b"".join(properties)
    size = CONTENT.size + len(packed)
    content = CONTENT.pack(BASIC << 16, len(message.body), flags)
    return b"".join((FRAME.pack(HEADER, channel, size), content, packed, END))


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _packed_table(items: Iterable[tuple[str, str]]) -> bytes:
    fields = bytearray()
    for name, value in items:
        encoded = value.encode()
        fields += b"".join((_short(name), b"S", LONG.pack(len(encoded)), encoded))
    return LONG.pack(len(fields)) + fields
