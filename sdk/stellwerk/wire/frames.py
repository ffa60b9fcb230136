"""Writes protobuf messages from parts that are serialised already.

Protobuf reads the fields of a message in any order, and messages laid end to end as one. So a frame
of many messages costs one copy of their bytes and no second encoding.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from google.protobuf.message import Message

VARINT, DELIMITED = 0, 2


def tag(message: type[Message], field: str, wire_type: int = DELIMITED) -> bytes:
    """Returns the bytes that stand before the field's value."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)


# The same lengths and timeouts come again and again; the look-up takes half the time.
@lru_cache(maxsize=4096)
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
    """A queue of elements of one repeated field, and of groups of them, which a second field holds.
    Both are taken out in frames of limited size.

    An element or group is given in two parts: its serialised fields but one, and the serialised
    value of that one field, a message, which is not encoded a second time.
    """

    def __init__(
        self,
        tag: bytes,
        inner_tag: bytes,
        most: int,
        most_bytes: int,
        *,
        group_tag: bytes = b"",
        group_inner_tag: bytes = b"",
    ) -> None:
        """Begins empty; `tag` is that of the repeated field, `inner_tag` that of the elements' last
        field. `group_tag` and `group_inner_tag` are the same for groups.

        A frame holds at most `most` elements, those of groups included, and `most_bytes` bytes; a
        larger element or group has a frame of its own.
        """
        self._tags = (tag, inner_tag)
        self._group_tags = (group_tag, group_inner_tag)
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[bytes, bytes] | tuple[bytes, bytes, int]] = deque()
        # Adds an element, given as its two parts, or a group, given as its two parts and its number
        # of members. The deque's own method: it is called for every call and every answer, and a
        # method around it would double its cost.
        self.put = self._waiting.append

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> list[bytes]:
        """Removes the next frame; returns its parts, none if no element waits."""
        waiting = self._waiting
        parts: list[bytes] = []
        count = 0
        total = 0
        while waiting and count < self._most:
            element = waiting[0]
            if len(element) == 2:
                tag, inner_tag = self._tags
                head, inner = element
                count += 1
            else:
                tag, inner_tag = self._group_tags
                head, inner, members = element
                count += members
            inner_size = varint(len(inner))
            size = len(head) + len(inner_tag) + len(inner_size) + len(inner)
            total += size
            if parts and (count > self._most or total > self._most_bytes):
                break
            waiting.popleft()
            parts += (tag, varint(size), head, inner_tag, inner_size, inner)
        return parts
