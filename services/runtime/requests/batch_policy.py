"""How the requests of one version wait and are joined, as its owner and the operator say. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.runtime.formats.port import Signature
from stellwerk.type.v1 import serving_pb2

# Deliveries in hand for each slot where a call takes one item: one that runs, and one that is here
# when it ends.
_ALONE = 2
# … and where a call takes all that is there: enough for a good call even if each delivery brings
# one row. More would only be kept from other runtimes that share the queue.
_JOINED = 32
_JOINED_IN_ALL = 256
# Bytes of inputs that deliveries in hand may hold, as far as the signature tells.
_IN_HAND_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Rows are counted along the first dimension; times are seconds."""

    max_rows: int = 256
    # Ascending, none above max_rows.
    preferred: tuple[int, ...] = ()
    max_delay: float = 0.0
    # 0: all requests are alike.
    priority_levels: int = 0
    default_priority: int = 1
    # The longest a call should be in the model; 0 for no such bound.
    objective: float = 0.0

    def priority(self, asked: int) -> int:
        """The level of a request that asks for this priority, the default for none and for one that
        does not exist.

        1 goes first.
        """
        if not self.priority_levels:
            return 1
        return asked if 1 <= asked <= self.priority_levels else self.default_priority

    def cut(self, rows: int) -> int:
        """Of so many rows that wait, the number to call the model with."""
        return max((size for size in self.preferred if size <= rows), default=rows)

    def enough(self, limit: int) -> int:
        """Rows at which a call need not wait for more; at most `limit`."""
        return min(limit, self.preferred[0]) if self.preferred else limit


def batch_policy(serving: serving_pb2.ServingPolicy, max_rows: int) -> BatchPolicy:
    """The policy of a version whose owner says this; `max_rows` is the operator's word where the
    owner gave none.
    """
    rows = serving.max_batch_size or max_rows
    levels, default = serving.priority_levels, serving.default_priority
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


def prefetch(slots: int, max_rows: int, methods: Iterable[tuple[bool, Signature]]) -> int:
    """Deliveries to have in hand: what the next calls can take, and no more, so that others find
    work in the queue.

    `methods` are those the version declares, each with whether its calls may be joined.
    """
    known = list(methods)
    least = slots * _ALONE
    if max_rows == 1 or not any(joins for joins, _ in known):
        return least
    wanted = min(slots * min(_JOINED, max_rows), max(_JOINED_IN_ALL, least))
    widest = max(row_bytes(signature) for _, signature in known)
    return max(least, min(wanted, _IN_HAND_BYTES // max(1, widest)))


def row_bytes(signature: Signature) -> int:
    """Bytes of one row of the inputs, dimensions that are not declared counted as one."""
    total = 0
    for spec in signature.inputs:
        size = 8
        for dimension in spec.shape[1:]:
            size *= max(1, dimension)
        total += size
    return total
