"""Counts the requests that no model answered, and shows what waits and what is under way."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

# Reasons beside those of `queueing.admission` for which a request is not answered by a model.
DEADLINE_PASSED = "deadline_passed"
BROKER_FULL = "broker_full"
BROKER_DOWN = "broker_down"
CANCELLED = "cancelled"


# The labels of a serving key: a version's resource name, and the digest of requirements or "any".
_KEY_LABELS = ("model_version", "requirements")


class DispatchMetrics:
    """Counts requests that got no reply from a model, by reason, and holds gauges by key."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rejections = Counter(
            "stellwerk_rejections",
            "Requests not answered, by reason",
            ["model_version", "reason"],
            registry=registry,
        )
        self._queued = Gauge(
            "stellwerk_queued", "Requests waiting in this router", _KEY_LABELS, registry=registry
        )
        self._underway = Gauge(
            "stellwerk_in_flight",
            "Cost of requests that are sent and unanswered",
            _KEY_LABELS,
            registry=registry,
        )
        # Kept, because looking a child up by its labels costs more than counting.
        self._children: dict[tuple[str, str], Counter] = {}

    def rejected(self, key: str, reason: str, count: int = 1) -> None:
        """Counts requests of a serving key."""
        child = self._children.get((key, reason))
        if child is None:
            child = self._children[key, reason] = self._rejections.labels(_labels(key)[0], reason)
        child.inc(count)

    def watch(self, key: str, queued: Callable[[], float], underway: Callable[[], float]) -> None:
        """Has the gauges of a key read from these functions at each scrape."""
        self._queued.labels(*_labels(key)).set_function(queued)
        self._underway.labels(*_labels(key)).set_function(underway)

    def forget(self, key: str) -> None:
        """Removes the gauges of a key that is not used any more."""
        self._queued.remove(*_labels(key))
        self._underway.remove(*_labels(key))
        for labels in [labels for labels in self._children if labels[0] == key]:
            del self._children[labels]


def _labels(key: str) -> tuple[str, str]:
    bucket, model, version, requirements = key.split("/")
    return f"buckets/{bucket}/models/{model}/versions/{version}", requirements
