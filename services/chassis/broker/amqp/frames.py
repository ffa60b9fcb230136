"""Packs and unpacks the parts of AMQP 0-9-1 that every message costs, each in one step.

Pure. The bytes are those that pika makes from one object per frame, method and set of properties.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct

from services.chassis.broker.port import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
BASIC = 60
PUBLISH, DELIVER, ACK, NACK = ((BASIC << 16) | method for method in (40, 60, 80, 120))
# Flags of a content header: the properties that follow, in the order in which they follow.
HEADERS, DELIVERY_MODE, CORRELATION_ID, REPLY_TO = 1 << 13, 1 << 12, 1 << 10, 1 << 9
EXPIRATION, MESSAGE_ID, APP_ID = 1 << 8, 1 << 7, 1 << 3
END = b"\xce"
# A frame is its kind, channel and payload size, the payload, and the end mark.
FRAME = Struct(">BHI")
OVERHEAD = FRAME.size + len(END)
METHOD_ID = Struct(">I")
# A content header: class and weight, the body's size, the flags.
CONTENT = Struct(">IQH")
LONG = Struct(">I")
# The properties that the platform sends. A message with any other is left to pika.
_OURS = HEADERS | DELIVERY_MODE | CORRELATION_ID | REPLY_TO | EXPIRATION | MESSAGE_ID | APP_ID
_TEXTS = tuple(enumerate((CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID)))
# Delivery mode 1: the broker keeps the message in memory only.
_TRANSIENT = b"\x01"
# Bytes. A larger body is sent in pieces instead of being copied into one string with its frames.
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
    """Packs a publish with its content; a large body in pieces, to be sent one after the other.

    `mark` travels as the application's id. `frame_max` is the largest frame in bytes that the
    broker takes. Raises ValueError for a name, mark or property of more than 255 bytes.
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
    if flags & HEADERS:
        at += 4 + LONG.unpack_from(properties, at)[0]
        if not _unpack_table(properties, 6, at, headers):
            return None
    if flags & DELIVERY_MODE:
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
        at = value + LONG.unpack_from(properties, after + 1)[0]
        headers[name] = properties[value:at].decode(errors="replace")
    return True


# A process publishes to a few queues again and again, so their methods are packed once.
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
