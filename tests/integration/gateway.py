"""A whole gateway over a fake platform, for the tests of its doors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from services.api_gateway.config import GatewaySettings
from services.api_gateway.main import open_doors
from services.chassis.lifecycle.process import Process
from tests.fakes.upstreams import FakeUpstreams


@dataclass(slots=True)
class Gateway:
    """A running gateway, its platform, and a client for each way in."""

    process: Process
    upstreams: FakeUpstreams
    http: httpx.AsyncClient
    http_port: int
    grpc_address: str

    def bearer(self, **changes: Any) -> dict[str, str]:
        return {
            "authorization": (
                f"Bearer {self.upstreams.issuer.token('principals/ada', ('admin', '*'), **changes)}"
            )
        }


async def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Polls until the condition holds; fails after `seconds`, with what the condition looks at."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        seen = inspect.getclosurevars(condition).nonlocals
        raise AssertionError(f"not after {seconds} s: {seen}") from None


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Gateway]:
    """Starts a gateway over a fake platform, and ends both."""
    upstreams = await FakeUpstreams().start()
    address = upstreams.address
    given = GatewaySettings(
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        router=address,
        repository=address,
        controlplane=address,
        service_key="sws_api_gateway_" + "b" * 43,
        log_level="warning",
        drain_seconds=2,
        **settings,
    )
    process = Process("api_gateway", given)
    server = open_doors(process, given)
    task = asyncio.create_task(process.run())
    try:
        await wait_for(lambda: task.done() or (server.port and not process.readiness.reasons()))
        if task.done():
            task.result()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", timeout=20
        ) as client:
            yield Gateway(
                process, upstreams, client, server.port, f"127.0.0.1:{process.bound_port}"
            )
    finally:
        process.stop()
        await task
        await upstreams.stop()
