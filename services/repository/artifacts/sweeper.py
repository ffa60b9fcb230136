"""Removes what dead processes left behind: uploads that lapsed, dead streams, chunks that belong to
nothing.
"""

from __future__ import annotations

import asyncio

import structlog

from services.repository.artifacts.upload_sessions import Tickets
from services.repository.metrics import Gauges
from services.repository.mongo import Artifacts
from stellwerk.wire.errors import ServiceError


class Sweeper:
    """Sweeps at start and now and then."""

    def __init__(
        self,
        tickets: Tickets,
        artifacts: Artifacts,
        gauges: Gauges,
        log: structlog.typing.FilteringBoundLogger,
        seconds: float,
    ) -> None:
        self._tickets, self._artifacts, self._gauges, self._log = tickets, artifacts, gauges, log
        self._seconds = seconds

    async def run(self) -> None:
        """Sweeps for ever; a database that is away is tried again the next time."""
        while True:
            try:
                await self.sweep()
            except ServiceError as exc:
                self._log.warning("sweep_failed", reason=exc.reason)
            await asyncio.sleep(self._seconds)

    async def sweep(self) -> int:
        """Sweeps once; returns how many files were removed."""
        dead = await self._tickets.drop_lapsed()
        for file in dead:
            await self._artifacts.remove(file)
        removed = len(dead) + await self._artifacts.remove_orphans()
        if removed:
            self._gauges.swept.inc(removed)
            self._log.info("swept", files=removed)
        return removed
