"""The stream of one attached runtime: its orders, and nothing left behind when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.router.fleet.reconciler import Reconciler
from services.router.fleet.registry import FleetRegistry
from services.router.fleet.servicer import FleetServicer
from services.router.queueing.pending_requests import PendingRequests
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import Unavailable
from tests.fakes.log import FakeLog


class Scene:
    """A router without other runtimes, and one that attaches."""

    def __init__(self) -> None:
        self.reconciler = Reconciler(
            FleetRegistry(10.0, 30.0), PendingRequests(), 300.0, lambda key: None
        )
        log: Any = FakeLog()
        self.servicer = FleetServicer(self.reconciler, "r1", log)
        self.ended = asyncio.Event()

    async def requests(self) -> AsyncIterator[messages.AttachRequest]:
        runtime = router_pb2.Runtime(name="runtimes/a", instance="i1", slots=1)
        yield messages.AttachRequest(advertisement=runtime)
        await self.ended.wait()

    async def attach(self) -> Any:
        """Returns the runtime's stream, its welcome read."""
        stream = self.servicer.Attach(self.requests(), None)
        assert (await anext(stream)).HasField("welcome")
        return stream


async def test_a_stream_that_is_cancelled_while_it_waits_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    stream = await Scene().attach()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)

    assert not asyncio.all_tasks() - before


async def test_a_runtime_that_leaves_ends_its_stream() -> None:
    scene = Scene()
    stream = await scene.attach()

    scene.ended.set()

    assert await anext(stream, None) is None
    assert "i1" not in scene.reconciler.registry.members


async def test_a_runtime_that_is_let_go_is_told_to_attach_again() -> None:
    scene = Scene()
    stream = await scene.attach()

    await scene.reconciler.release()

    with pytest.raises(Unavailable, match="attach again"):
        await anext(stream)
