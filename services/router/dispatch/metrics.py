"""What the dispatcher counts. Label children are cached: looking them up costs more than
counting.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

DEADLINE_PASSED, BROKER_FULL, BROKER_DOWN, CANCELLED = (
    "deadline_passed",
    "broker_full",
    "broker_down",
    "cancelled",
)


class DispatchMetrics:
    """Requests that got no answer from a model, by why, and what waits and is under way."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rejections = Counter(
            "stellwerk_rejections",
            "Requests not answered, by reason",
            ["model", "reason"],
            registry=registry,
        )
        self._queued = Gauge(
            "stellwerk_queued", "Requests waiting in this router", ["key"], registry=registry
        )
        self._underway = Gauge(
            "stellwerk_in_flight", "Cost of what is sent and unanswered", ["key"], registry=registry
        )
        self._children: dict[tuple[str, str], Counter] = {}

    def rejected(self, key: str, reason: str) -> None:
        """Counts a request of a serving key."""
        child = self._children.get((key, reason))
        if child is None:
            child = self._children[key, reason] = self._rejections.labels(
                key.rpartition("/")[0], reason
            )
        child.inc()

    def watch(self, key: str, queued: Callable[[], float], underway: Callable[[], float]) -> None:
        """Reads a key's gauges from these whenever somebody looks."""
        self._queued.labels(key).set_function(queued)
        self._underway.labels(key).set_function(underway)

    def forget(self, key: str) -> None:
        """A key is used no more."""
        self._queued.remove(key)
        self._underway.remove(key)
        for labels in [labels for labels in self._children if labels[0] == key]:
            del self._children[labels]
