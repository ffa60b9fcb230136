"""What the repository counts about itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Gauges:
    """The metrics of the repository, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes_in = Counter(
            "stellwerk_repository_bytes_in", "Artifact bytes received", registry=registry
        )
        self.bytes_out = Counter(
            "stellwerk_repository_bytes_out", "Artifact bytes sent", registry=registry
        )
        self.committed = Counter(
            "stellwerk_repository_versions_committed", "Versions made", registry=registry
        )
        self.aborted = Counter(
            "stellwerk_repository_uploads_aborted",
            "Uploads that ended without a version",
            registry=registry,
        )
        self.corrupt = Counter(
            "stellwerk_repository_artifacts_corrupt",
            "Downloads of bytes without their digest",
            registry=registry,
        )
        self.swept = Counter(
            "stellwerk_repository_files_swept", "Files of dead uploads removed", registry=registry
        )
        self.transfers = Gauge(
            "stellwerk_repository_transfers", "Artifacts on their way now", registry=registry
        )
        self.unpublished = Gauge(
            "stellwerk_repository_events_unpublished", "Events to be published", registry=registry
        )
