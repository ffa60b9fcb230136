"""A Process that runs inside a test: it trusts a FakeIssuer, writes to a FakeLedger and needs no
other service.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.chassis.config import ServiceSettings
from services.chassis.lifecycle.process import Process
from tests.fakes.issuer import FakeIssuer
from tests.fakes.ledger import FakeLedger


class Standalone:
    """The process with what a test looks at."""

    def __init__(self, process: Process, issuer: FakeIssuer, ledger: FakeLedger) -> None:
        self.process, self.issuer, self.ledger = process, issuer, ledger

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.process.bound_port}"

    def channel(self) -> grpc.aio.Channel:
        """A bare channel to the process."""
        return grpc.aio.insecure_channel(self.address)

    def bearer(
        self, *grants: tuple[str, str], subject: str = "principals/ada", **changes: Any
    ) -> tuple[tuple[str, str]]:
        """Call metadata with a token for these (role, bucket) grants."""
        return (("authorization", "Bearer " + self.issuer.token(subject, *grants, **changes)),)


@asynccontextmanager
async def standalone(
    service: str, build: Callable[[Process], None], settings: ServiceSettings | None = None
) -> AsyncIterator[Standalone]:
    """Runs a process that `build` has put together until the block ends, then drains it."""
    issuer, ledger = FakeIssuer(), FakeLedger()

    async def own_token() -> tuple[str, float]:
        return issuer.token(f"services/{service}", (f"service.{service}", "*")), 600.0

    chosen = settings or ServiceSettings(log_level="error", drain_seconds=2)
    process = Process(service, chosen, audit_sink=ledger, token=own_token)
    process.verifier.trust(issuer.bundle())
    build(process)
    running = asyncio.create_task(process.run())
    try:
        async with asyncio.timeout(10):
            await asyncio.wait(
                {running, asyncio.create_task(process.started.wait())},
                return_when="FIRST_COMPLETED",
            )
        if running.done():
            running.result()  # raises why it could not start
        yield Standalone(process, issuer, ledger)
    finally:
        process.stop()
        await asyncio.wait_for(running, 15)
