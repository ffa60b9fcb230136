"""Envelopes, written so that an item is serialised once, when it comes, and only its timeout when it goes: protobuf
reads fields in any order, and messages that are written one after the other as one."""

from __future__ import annotations

from collections.abc import Iterable

from stellwerk.job.v1 import work_pb2

_DELIMITED = 2
_LONGEST_MS = 2**32 - 1


def _tag(field: str, message: type[work_pb2.WorkEnvelope] | type[work_pb2.WorkItem], wire_type: int) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)


def varint(number: int) -> bytes:
    """A non-negative integer as protobuf writes it."""
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


_KEY = _tag("key", work_pb2.WorkEnvelope, _DELIMITED)
_ITEM = _tag("items", work_pb2.WorkEnvelope, _DELIMITED)
_TIMEOUT = _tag("timeout_ms", work_pb2.WorkItem, 0)


def encode(key: str, items: Iterable[tuple[bytes, int]]) -> bytes:
    """A WorkEnvelope of items that are serialised already, each with its timeout in milliseconds."""
    name = key.encode()
    parts = [_KEY, varint(len(name)), name]
    for body, timeout_ms in items:
        timeout = _TIMEOUT + varint(min(timeout_ms, _LONGEST_MS))
        parts += (_ITEM, varint(len(body) + len(timeout)), body, timeout)
    return b"".join(parts)
