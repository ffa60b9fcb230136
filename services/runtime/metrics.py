"""Counts what a runtime does. Label children are cached: a look-up costs more than counting."""

from __future__ import annotations

from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Buckets of times, in seconds.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Buckets of requests per call.
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_VERSION = ("model_version",)
# Name → kind, description, labels, and the buckets of a histogram.
_METRICS: dict[str, tuple[type, str, tuple[str, ...], tuple[float, ...] | None]] = {
    "stellwerk_model_loads": (Counter, "Models loaded into memory", _VERSION, None),
    "stellwerk_model_evictions": (Counter, "Models evicted to make room", _VERSION, None),
    "stellwerk_model_calls": (
        Counter,
        "Requests answered, by outcome: ok or an error's reason",
        ("model_version", "outcome"),
        None,
    ),
    "stellwerk_model_call_seconds": (Histogram, "Seconds in the model", _VERSION, _SECONDS),
    "stellwerk_model_queue_seconds": (
        Histogram,
        "Seconds in the runtime before a call, of the request that waited longest",
        _VERSION,
        _SECONDS,
    ),
    "stellwerk_model_batch_items": (Histogram, "Requests per call", _VERSION, _REQUESTS),
    "stellwerk_model_joining_refused": (
        Counter,
        "Methods that a probe settled to be called for one request at a time",
        _VERSION,
        None,
    ),
    "stellwerk_model_recalled": (
        Counter,
        "Requests answered from the response cache",
        _VERSION,
        None,
    ),
    "stellwerk_model_resident_bytes": (Gauge, "Bytes of models in memory", (), None),
    "stellwerk_artifact_fetches": (Counter, "Artifacts fetched from the repository", (), None),
    "stellwerk_model_load_seconds": (Histogram, "Seconds to load a model", (), _SECONDS),
}


class RuntimeMetrics:
    """The metrics of one runtime, beside those of every process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = {name: _make(name, registry) for name in _METRICS}
        self._loads = made["stellwerk_model_loads"]
        self._evictions = made["stellwerk_model_evictions"]
        self._batching_refused = made["stellwerk_model_joining_refused"]
        self._recalled = made["stellwerk_model_recalled"]
        self.resident_bytes = made["stellwerk_model_resident_bytes"]
        self.artifact_fetches = made["stellwerk_artifact_fetches"]
        self.load_seconds = made["stellwerk_model_load_seconds"]
        self._outcomes = cache(made["stellwerk_model_calls"].labels)
        self._seconds = cache(made["stellwerk_model_call_seconds"].labels)
        self._waits = cache(made["stellwerk_model_queue_seconds"].labels)
        self._batches = cache(made["stellwerk_model_batch_items"].labels)

    def loaded(self, version: str) -> None:
        """Counts a load."""
        self._loads.labels(version).inc()

    def evicted(self, version: str) -> None:
        """Counts an eviction."""
        self._evictions.labels(version).inc()

    def answered(self, version: str, outcome: str, requests: int = 1) -> None:
        """Counts requests with one outcome: "ok" or an error's reason."""
        self._outcomes(version, outcome).inc(requests)

    def called(
        self, version: str, outcome: str, answered: int, requests: int, wait: float, compute_ns: int
    ) -> None:
        """Records one call for `requests` requests, of which `answered` were still open.

        `wait` is the longest wait among these, in seconds.
        """
        self.answered(version, outcome, answered)
        self._batches(version).observe(requests)
        self._waits(version).observe(wait)
        self._seconds(version).observe(compute_ns / 1e9)

    def recalled(self, version: str) -> None:
        """Counts a request that the response cache answered; it counts as answered too."""
        self._recalled.labels(version).inc()
        self.answered(version, "ok")

    def batching_refused(self, version: str) -> None:
        """Counts a method that a probe settled to be called for one request at a time."""
        self._batching_refused.labels(version).inc()


def _make(name: str, registry: CollectorRegistry) -> Any:
    kind, description, labels, buckets = _METRICS[name]
    options = {} if buckets is None else {"buckets": buckets}
    return kind(name, description, labels, registry=registry, **options)
