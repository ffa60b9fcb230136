"""Limits the number of fields in a message, counted before it is parsed. Pure.

A megabyte of empty messages takes a hundred megabytes once it is parsed.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor

from stellwerk.wire.errors import TooLarge

# Bytes of a message from which its fields are counted: a smaller one is parsed within 25 MB.
COUNTED_FROM_BYTES = 256 * 1024
# The most fields on all levels; a packed field counts once. Real requests have a few thousand: a
# raw or packed tensor has about ten.
MOST_FIELDS = 1 << 18


def check(data: bytes, message: Descriptor) -> None:
    """Raises TooLarge for a message of this type with more than MOST_FIELDS fields.

    Bytes that are no message pass; the parser refuses them.
    """
    if len(data) < COUNTED_FROM_BYTES:
        return
    try:
        enough = _within(data, message, MOST_FIELDS)
    except IndexError:
        return
    if not enough:
        raise TooLarge(
            f"the message has more than {MOST_FIELDS} fields; send large tensors raw",
            limit_fields=MOST_FIELDS,
        )


def _within(data: bytes, message: Descriptor, most: int) -> bool:
    """Returns whether the message has at most `most` fields. Raises IndexError if it breaks off."""
    waiting = [(0, len(data), message)]
    while waiting:
        at, end, current = waiting.pop()
        inner = _message_fields(current)
        while at < end:
            most -= 1
            if most < 0:
                return False
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == 2:
                length, at = _varint(data, at)
                found = inner.get(tag >> 3)
                if found is not None and at + length <= end:
                    waiting.append((at, at + length, found))
                at += length
            elif kind == 0:
                _, at = _varint(data, at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            elif kind > 5:
                return True  # The parser refuses such a wire type.
            # Kinds 3 and 4 begin and end a group; it has no length, and no message here has one.
    return True


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("the number is too long")


@cache
def _message_fields(message: Descriptor) -> dict[int, Descriptor]:
    """Returns the types of the fields that hold messages, by field number."""
    return {
        field.number: field.message_type
        for field in message.fields
        if field.message_type is not None
    }
