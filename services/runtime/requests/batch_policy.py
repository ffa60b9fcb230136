"""Holds the batching policy of one version: how its requests wait, and how many share a call.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.runtime.formats.port import Signature
from stellwerk.type.v1 import serving_pb2

# Deliveries to prefetch per slot when each call takes one request: the one that runs, and the next
# one, so that a slot never waits for the broker.
_UNBATCHED_PER_SLOT = 2
# Deliveries to prefetch per slot, and in all, when calls are batched: they fill a batch even if
# each delivery brings one row. More would be withheld from other runtimes on the same queue.
_BATCHED_PER_SLOT = 32
_BATCHED_IN_ALL = 256
# Bytes of inputs that prefetched deliveries may hold, as estimated from the signature; bounds the
# memory of a runtime whose rows are large.
_PREFETCHED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The batching policy of one version. Rows count the first dimension; times are seconds."""

    max_rows: int = 256
    # Preferred batch sizes, ascending, none above max_rows.
    preferred: tuple[int, ...] = ()
    max_delay: float = 0.0
    # Number of priority levels; level 1 goes first. 0 means that all requests are alike.
    priority_levels: int = 0
    # The level of a request that asks for none, or for one that does not exist.
    default_priority: int = 1
    # Longest time that a call should spend in the model; 0 means no objective.
    objective: float = 0.0

    def batch_rows(self, rows: int) -> int:
        """Returns the largest preferred batch size ≤ `rows`, or `rows` if there is none."""
        return max((size for size in self.preferred if size <= rows), default=rows)

    def rows_to_start(self, limit: int) -> int:
        """Returns the number of queued rows at which a call starts without further delay."""
        return min(limit, self.preferred[0]) if self.preferred else limit


def batch_policy(serving: serving_pb2.ServingPolicy, max_rows: int) -> BatchPolicy:
    """Returns the policy that the version's owner declared in `serving`.

    `max_rows` is the operator's limit; it applies where the owner declared no batch size.
    """
    rows = serving.max_batch_size or max_rows
    levels = serving.priority_levels
    default = serving.default_priority
    return BatchPolicy(
        max_rows=rows,
        preferred=tuple(
            sorted({size for size in serving.preferred_batch_sizes if 0 < size <= rows})
        ),
        max_delay=serving.max_queue_delay_us / 1e6,
        priority_levels=levels,
        default_priority=default if 1 <= default <= levels else max(1, (levels + 1) // 2),
        objective=serving.latency_objective_ms / 1e3,
    )


def prefetch_count(slots: int, max_rows: int, methods: Iterable[tuple[bool, Signature]]) -> int:
    """Returns the number of deliveries to prefetch: what the next calls take, and no more.

    `methods` pairs each declared method's signature with whether its requests may share a call.
    Deliveries beyond this number stay in the queue, where other runtimes find them.
    """
    known = list(methods)
    least = slots * _UNBATCHED_PER_SLOT
    if max_rows == 1 or not any(batched for batched, _ in known):
        return least
    wanted = min(slots * min(_BATCHED_PER_SLOT, max_rows), max(_BATCHED_IN_ALL, least))
    widest = max(row_bytes(signature) for _, signature in known)
    return max(least, min(wanted, _PREFETCHED_BYTES // max(1, widest)))


def row_bytes(signature: Signature) -> int:
    """Returns the estimated bytes of one row of the inputs: 8 per element, open dimensions as 1."""
    total = 0
    for spec in signature.inputs:
        size = 8
        for dimension in spec.shape[1:]:
            size *= max(1, dimension)
        total += size
    return total
