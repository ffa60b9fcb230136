"""Removes what dead processes left: lapsed uploads, files of dead streams, orphaned chunks."""

from __future__ import annotations

import asyncio

import structlog

from services.repository.artifacts.artifact_store import ArtifactStore
from services.repository.artifacts.upload_sessions import UploadSessions
from services.repository.metrics import RepositoryMetrics
from stellwerk.wire.errors import ServiceError


class Sweeper:
    """Sweeps at the start and every `seconds`."""

    def __init__(
        self,
        sessions: UploadSessions,
        artifacts: ArtifactStore,
        metrics: RepositoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
        seconds: float,
    ) -> None:
        self._sessions = sessions
        self._artifacts = artifacts
        self._metrics = metrics
        self._log = log
        self._seconds = seconds

    async def run(self) -> None:
        """Sweeps until cancelled; a sweep that fails is logged and repeated at its next time."""
        while True:
            try:
                await self.sweep()
            except ServiceError as exc:
                self._log.warning("sweep_failed", reason=exc.reason)
            await asyncio.sleep(self._seconds)

    async def sweep(self) -> int:
        """Sweeps once; returns the number of files removed."""
        dead = await self._sessions.drop_lapsed()
        for file in dead:
            await self._artifacts.remove(file)
        removed = len(dead) + await self._artifacts.remove_orphans()
        if removed:
            self._metrics.swept.inc(removed)
            self._log.info("files_swept", files=removed)
        return removed
