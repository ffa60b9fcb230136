"""What a model's owner asks of its queue."""

from __future__ import annotations

from dataclasses import dataclass

from stellwerk.type.v1 import serving_pb2


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Bound and order of one model's queue. Made once for a version, used for each of its
    requests.
    """

    # Requests that wait at most; 0 for the router's own bound, which a model can only lower.
    max_queued: int = 0
    # Priorities 1 to `levels` can be asked for; with 0 all requests are equal.
    levels: int = 0
    default_priority: int = 1
    # Seconds; 0 for the platform's default.
    default_timeout: float = 0.0

    @staticmethod
    def of(serving: serving_pb2.ServingPolicy) -> QueuePolicy:
        """The policy of a model version."""
        levels, default = serving.priority_levels, serving.default_priority
        if not 1 <= default <= levels:
            default = (levels + 1) // 2 or 1
        return QueuePolicy(
            serving.max_queue_size, levels, default, serving.default_timeout_ms / 1000
        )

    def priority(self, asked: int) -> int:
        """The priority of a request that asks for this one; the default for 0 and for one that does
        not exist.
        """
        return asked if 1 <= asked <= self.levels else self.default_priority
