"""A gateway over a fake platform, started once for each module and clean for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.gateway import Gateway, running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started_gateway() -> AsyncIterator[Gateway]:
    async with running(max_body_bytes=1024 * 1024) as started:
        yield started


@pytest.fixture
def gateway(started_gateway: Gateway) -> Gateway:
    """The module's gateway, its upstreams without scripts and calls."""
    started_gateway.upstreams.scripts.clear()
    started_gateway.upstreams.calls.clear()
    return started_gateway
