"""Remembers responses of models whose owner declares that equal inputs have equal outputs. Pure but
for the time that a lookup takes.

The cache is bounded in bytes and drops the least recently used response first. A version never
changes, so no response goes stale.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence

from services.runtime.requests.request import Request
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2

# The output tensors of a response. Several replies share them: read them, never change them.
Outputs = tuple[tensor_pb2.Tensor, ...]

_VERSION_BYTES = 16
_CALL_BYTES = 32
# Estimated bytes that a cached response takes beside its data: key, objects and two table entries.
_OVERHEAD = 1024


def cache_key(
    version_name: str,
    method: str,
    wanted_outputs: Sequence[str],
    inputs: Sequence[tensor_pb2.Tensor],
) -> bytes:
    """Returns a digest of everything that the outputs depend on.

    The order of the inputs counts, because a model without a signature may tell them apart by it.
    """
    digest = hashlib.blake2b(digest_size=_CALL_BYTES)
    # A length before every part keeps two lists of parts from having the same bytes.
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
    """Cached outputs by `cache_key`. Belongs to one thread, the event loop's."""

    def __init__(self, capacity: int) -> None:
        """Keeps at most `capacity` bytes; 0 keeps nothing."""
        self.capacity = capacity
        self.used = 0
        # Least recently used first.
        self._kept: OrderedDict[bytes, tuple[Outputs, int]] = OrderedDict()
        self._by_version: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, request: Request) -> tuple[Outputs, int] | None:
        """Returns the cached outputs for the request and the nanoseconds that the lookup took.

        Stores the key in the request, for `keep`.
        """
        begun = time.perf_counter_ns()
        layout = request.layout
        request.cache_key = cache_key(
            request.work.model_version, layout.method.name, layout.outputs, request.item.inputs
        )
        outputs = self.get(request.cache_key)
        return (outputs, time.perf_counter_ns() - begun) if outputs is not None else None

    def keep(self, requests: Sequence[Request], frames: Sequence[bytes]) -> None:
        """Caches the outputs in the encoded replies of requests that were looked up before."""
        for request, frame in zip(requests, frames, strict=True):
            if request.cache_key:
                envelope = work_pb2.WorkReplyEnvelope.FromString(frame)
                (reply,) = envelope.replies or [group.reply for group in envelope.groups]
                self.put(request.cache_key, tuple(reply.outputs), len(frame))

    def get(self, key: bytes) -> Outputs | None:
        """Returns the outputs cached under the key, and marks them as used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: bytes, outputs: Outputs, nbytes: int) -> None:
        """Caches outputs of `nbytes` bytes, unless they alone exceed the capacity."""
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
        """Drops every response of the version."""
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
