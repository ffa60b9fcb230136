"""Answers that were given before, for models whose owner says that equal inputs have equal answers.
Pure.

Bounded in bytes; what was not asked for longest goes first. A version never changes, so nothing in
here grows old.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Sequence

from stellwerk.type.v1 import tensor_pb2

# Serialised output tensors. Whoever gets them shares them: they are read, never changed.
Outputs = tuple[tensor_pb2.Tensor, ...]

_VERSION_BYTES = 16
_CALL_BYTES = 32
# What keeping one answer costs beside its data: its key, its objects and their places in two
# tables.
_OVERHEAD = 1024


def cache_key(
    version_name: str,
    method: str,
    wanted_outputs: Sequence[str],
    inputs: Sequence[tensor_pb2.Tensor],
) -> bytes:
    """A digest of everything that the answer depends on; calls that differ in anything have
    different keys.

    Inputs are taken in the order in which they are given: a model without a signature may tell them
    apart by it.
    """
    digest = hashlib.blake2b(digest_size=_CALL_BYTES)
    # Every part is preceded by its length, so that no two lists of parts run together to the same
    # bytes.
    parts = [method.encode(), struct.pack("<II", len(wanted_outputs), len(inputs))]
    parts += [name.encode() for name in wanted_outputs]
    for part in parts:
        digest.update(struct.pack("<Q", len(part)) + part)
    for tensor in inputs:
        name, datatype, shape, data = (
            tensor.name.encode(),
            tensor.datatype.encode(),
            tensor.shape,
            tensor.data,
        )
        digest.update(struct.pack("<QQQQ", len(name), len(datatype), len(shape), len(data)))
        digest.update(name + datatype + struct.pack(f"<{len(shape)}q", *shape))
        digest.update(data)
    return _version_prefix(version_name) + digest.digest()


class ResponseCache:
    """Answers by `cache_key`. Made for one thread, the event loop's."""

    def __init__(self, capacity: int) -> None:
        """At most `capacity` bytes are kept; 0 keeps nothing."""
        self.capacity = capacity
        self.used = 0
        self._kept: OrderedDict[bytes, tuple[Outputs, int]] = (
            OrderedDict()
        )  # least recently used first
        self._by_version: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Outputs | None:
        """The answer that is kept for this call."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: bytes, outputs: Outputs, nbytes: int) -> None:
        """Keeps an answer of so many bytes, in place of one that is kept; not if it alone is more
        than the bound.
        """
        self._remove(key)
        size = nbytes + _OVERHEAD
        if size > self.capacity:
            return
        while self.used + size > self.capacity:
            self._remove(next(iter(self._kept)))
        self._kept[key] = outputs, size
        self._by_version.setdefault(key[:_VERSION_BYTES], set()).add(key)
        self.used += size

    def discard(self, version_name: str) -> None:
        """Forgets every answer of the version."""
        for key in list(self._by_version.get(_version_prefix(version_name), ())):
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        _, size = self._kept.pop(key, ((), 0))
        if not size:
            return
        self.used -= size
        keys = self._by_version[key[:_VERSION_BYTES]]
        keys.discard(key)
        if not keys:
            del self._by_version[key[:_VERSION_BYTES]]


def _version_prefix(version_name: str) -> bytes:
    return hashlib.blake2b(version_name.encode(), digest_size=_VERSION_BYTES).digest()
