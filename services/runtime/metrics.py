"""What a runtime counts. Label children are cached: looking them up costs more than counting."""

from __future__ import annotations

from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class RuntimeMetrics:
    """The runtime's own metrics, next to those that every process has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_version = ["model_version"]
        self._loads = Counter(
            "stellwerk_model_loads", "Models loaded into memory", by_version, registry=registry
        )
        self._evictions = Counter(
            "stellwerk_model_evictions",
            "Models that left memory to make room",
            by_version,
            registry=registry,
        )
        self._calls = Counter(
            "stellwerk_model_calls",
            "Calls answered, by outcome",
            ["model_version", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "stellwerk_model_call_seconds",
            "Time of a call of the model",
            by_version,
            buckets=_SECONDS,
            registry=registry,
        )
        self._waits = Histogram(
            "stellwerk_model_queue_seconds",
            "Longest wait in the runtime of what a call of the model answers",
            by_version,
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "stellwerk_model_batch_items",
            "Calls joined into one",
            by_version,
            buckets=_ITEMS,
            registry=registry,
        )
        self._unjoinable = Counter(
            "stellwerk_model_joining_refused",
            "Methods whose rows do not bear company",
            by_version,
            registry=registry,
        )
        self._recalled = Counter(
            "stellwerk_model_recalled",
            "Calls answered from the response cache",
            by_version,
            registry=registry,
        )
        self.resident_bytes = Gauge(
            "stellwerk_model_resident_bytes", "Bytes of models in memory", registry=registry
        )
        self.artifact_fetches = Counter(
            "stellwerk_artifact_fetches", "Artifacts fetched from the repository", registry=registry
        )
        self.load_seconds = Histogram(
            "stellwerk_model_load_seconds",
            "Time to load a model",
            buckets=_SECONDS,
            registry=registry,
        )
        self._children = cache(self._make_children)
        self._outcomes = cache(self._calls.labels)

    def _make_children(self, version: str) -> tuple[Any, Any, Any]:
        return (
            self._seconds.labels(version),
            self._waits.labels(version),
            self._batches.labels(version),
        )

    def loaded(self, version: str) -> None:
        self._loads.labels(version).inc()

    def evicted(self, version: str) -> None:
        self._evictions.labels(version).inc()

    def answered(self, version: str, outcome: str, items: int = 1) -> None:
        """Counts items with the same end. `outcome` is "ok" or an error's reason."""
        self._outcomes(version, outcome).inc(items)

    def called(self, version: str, wait: float, compute_ns: int) -> None:
        """Times one call of the model; `wait` is that of the item that waited longest, in
        seconds.
        """
        seconds, waits, _ = self._children(version)
        waits.observe(wait)
        seconds.observe(compute_ns / 1e9)

    def batched(self, version: str, items: int) -> None:
        """Counts the items of one call."""
        self._children(version)[2].observe(items)

    def recalled(self, version: str) -> None:
        """Counts an item that was answered as an equal one was before; it is a call answered
        too.
        """
        self._recalled.labels(version).inc()
        self.answered(version, "ok")

    def unjoinable(self, version: str) -> None:
        """Counts a method whose answers differ when it is called with others' rows."""
        self._unjoinable.labels(version).inc()
