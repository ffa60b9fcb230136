"""Defines the repository's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class RepositoryMetrics:
    """Holds the repository's counters and gauges, registered in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes_in = Counter(
            "stellwerk_repository_bytes_in", "Artifact bytes received", registry=registry
        )
        self.bytes_out = Counter(
            "stellwerk_repository_bytes_out", "Artifact bytes sent", registry=registry
        )
        self.committed = Counter(
            "stellwerk_repository_versions_committed", "Versions created", registry=registry
        )
        self.aborted = Counter(
            "stellwerk_repository_uploads_aborted",
            "Uploads that ended without a version",
            registry=registry,
        )
        self.corrupt = Counter(
            "stellwerk_repository_artifacts_corrupt",
            "Downloads whose stored bytes failed the check of their digest",
            registry=registry,
        )
        self.swept = Counter(
            "stellwerk_repository_files_swept",
            "Files removed that dead uploads had left",
            registry=registry,
        )
        self.transfers = Gauge(
            "stellwerk_repository_transfers",
            "Artifacts being received or sent now",
            registry=registry,
        )
        self.unpublished = Gauge(
            "stellwerk_repository_events_unpublished",
            "Events committed and not yet published",
            registry=registry,
        )
