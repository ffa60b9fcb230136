"""Writes protobuf messages from parts that are serialised already.

Protobuf reads the fields of a message in any order, and messages laid end to end as one. So a frame
of many messages costs one copy of their bytes and no second encoding.
"""

from __future__ import annotations

from google.protobuf.message import Message

VARINT, DELIMITED = 0, 2


def tag(message: type[Message], field: str, wire_type: int = DELIMITED) -> bytes:
    """Returns the bytes that stand before the field's value."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)


def varint(number: int) -> bytes:
    """Returns a non-negative integer in protobuf's encoding of variable length."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


class FrameBuffer:
    """A queue of elements of one repeated field, gathered into frames of limited size."""

    def __init__(self, tag: bytes, most: int, most_bytes: int) -> None:
        """Begins empty; `tag` is the field's.

        A frame holds at most `most` elements and `most_bytes` bytes; a larger element has a frame
        of its own.
        """
        self._tag = tag
        self._most = most
        self._most_bytes = most_bytes
        self._full: list[list[bytes]] = []
        self.clear()

    def clear(self) -> None:
        """Drops all elements."""
        self._full.clear()
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._count = self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._full or self._parts)

    def put(self, head: bytes, inner_tag: bytes, inner: bytes) -> None:
        """Adds an element: the serialised fields in `head`, then the field of `inner_tag`, whose
        value is the serialised message `inner`, which is not copied.
        """
        inner_size = varint(len(inner))
        size = len(head) + len(inner_tag) + len(inner_size) + len(inner)
        if self._count >= self._most or (self._count and self._bytes + size > self._most_bytes):
            self._full.append(self._parts)
            self._begin()
        self._parts += (self._tag, varint(size), head, inner_tag, inner_size, inner)
        self._count += 1
        self._bytes += size

    def take(self) -> list[bytes]:
        """Removes the next frame; returns its parts, none if no element waits."""
        if self._full:
            return self._full.pop(0)
        parts = self._parts
        self._begin()
        return parts
