"""Readiness, as health checks and metrics show it."""

from __future__ import annotations

import asyncio

from prometheus_client import generate_latest

from services.chassis.lifecycle.process import Process
from tests.fakes.process import standalone


async def test_readiness_is_scraped_outside_of_the_event_loop() -> None:
    """As the metrics server does, from a thread of its own."""

    def problem() -> str:
        asyncio.get_running_loop()  # as the broker's, which compares times
        return ""

    def build(process: Process) -> None:
        process.depends_on("broker", problem)

    async with standalone("router", build) as router:
        scrape = await asyncio.to_thread(generate_latest, router.process.metrics)

    assert b'stellwerk_ready{service="router"} 1.0' in scrape
