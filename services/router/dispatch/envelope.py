"""Envelopes, written so that an item is serialised once, when it comes, and only its timeout when
it goes: protobuf reads fields in any order, and messages that are written one after the other as
one."""

from __future__ import annotations

from collections.abc import Iterable

from stellwerk.job.v1 import work_pb2
from stellwerk.wire.frames import VARINT, tag, varint

_LONGEST_MS = 2**32 - 1


_KEY = tag(work_pb2.WorkEnvelope, "key")
_ITEM = tag(work_pb2.WorkEnvelope, "items")
_TIMEOUT = tag(work_pb2.WorkItem, "timeout_ms", VARINT)


def encode(key: str, items: Iterable[tuple[bytes, int]]) -> bytes:
    """A WorkEnvelope of items that are serialised already, each with its timeout in
    milliseconds.
    """
    name = key.encode()
    parts = [_KEY, varint(len(name)), name]
    for body, timeout_ms in items:
        timeout = _TIMEOUT + varint(min(timeout_ms, _LONGEST_MS))
        parts += (_ITEM, varint(len(body) + len(timeout)), body, timeout)
    return b"".join(parts)
