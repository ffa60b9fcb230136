"""What a call holds while it waits for its reply."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from typing import Any

import pytest

from services.api_gateway.upstream.model_calls import ModelCalls
from services.chassis.context import CallContext
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.open_inference import InferRequest
from tests.fakes.eventually import eventually

SIZE = 8 * 1024 * 1024


class Silent:
    """A stream to a router that takes calls, keeps nothing of them and never answers."""

    def __init__(self) -> None:
        self.taken = 0
        self._greeting = [messages.ExchangeResponse()]

    async def read(self) -> messages.ExchangeResponse:
        if not self._greeting:
            await asyncio.Event().wait()
        return self._greeting.pop()

    async def write(self, frame: bytes) -> None:
        self.taken += len(frame)

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be told."""


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_waits_holds_no_copy_of_its_inputs(streamed: bool) -> None:
    routers: list[Silent] = []

    async def connect() -> Silent:
        routers.append(Silent())
        return routers[-1]

    calls = ModelCalls(connect)
    running = asyncio.create_task(calls.run())
    work = work_pb2.WorkItem(method="predict")
    work.inputs.add(name="x", datatype="UINT8", shape=[SIZE], data=bytes(SIZE))
    request = InferRequest("m", "", "", work)
    call = CallContext("m", "r", deadline=time.monotonic() + 60)
    waiting: asyncio.Task[Any]
    # The message's own memory is not Python's, so what is traced are copies.
    tracemalloc.start()
    try:
        if streamed:
            waiting = asyncio.create_task(anext(calls.stream(request, call)))
        else:
            waiting = asyncio.create_task(calls.call(request, call))
        await eventually(lambda: any(router.taken > SIZE for router in routers))
        await eventually(lambda: tracemalloc.get_traced_memory()[0] < SIZE / 2)
    finally:
        tracemalloc.stop()
    assert not waiting.done()

    waiting.cancel()
    running.cancel()
    await asyncio.gather(waiting, running, return_exceptions=True)
