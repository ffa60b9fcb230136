"""What the gateway has answered is freed at once, however it ended: the collector of cycles comes
late, and until then every request would keep its body.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import pytest_asyncio

from services.api_gateway.http.exchange import HttpExchange
from services.api_gateway.http.request import HttpRequest
from services.chassis.context import CallContext
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from tests.integration.gateway import Gateway, running, wait_for
from tests.integration.test_gateway_fast_infer import ASKED, FAST, SLOW, body, scripted

KINDS = (HttpRequest, HttpExchange, CallContext)
TIMES = 3
# Bytes of a large message.
SIZE = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway() -> AsyncIterator[Gateway]:
    async with running() as started:
        started.upstreams.answer("Call", scripted)
        yield started


def alive() -> set[int]:
    return {id(one) for one in gc.get_objects() if type(one) in KINDS}


@contextmanager
def without_collector() -> Iterator[set[int]]:
    """Yields what lived before."""
    gc.collect()
    gc.disable()
    try:
        yield alive()
    finally:
        gc.enable()


@pytest.mark.parametrize("path", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("asked", ASKED)
async def test_over_http(gateway: Gateway, asked: str, path: str) -> None:
    model, data, headers = ASKED[asked]
    headers = {**gateway.bearer(), **headers}

    async def ask() -> None:
        await gateway.http.post(path.format(model), content=data, headers=headers)

    await ask()
    await ask()
    with without_collector() as before:
        for _ in range(TIMES):
            await asyncio.gather(*[ask() for _ in range(TIMES)])
        await wait_for(lambda: alive() <= before)


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v2/models/m/infer", b"{"),
        ("POST", "/v2/models/m/infer", json.dumps({"inputs": 7}).encode()),
        ("POST", "/v1/buckets/default/models/m:predict", b'{"inputs": [{"name": "x"}]}'),
        ("POST", "/v1/buckets/default/models/m:predict", b'{"unknown": 1}'),
        ("GET", "/nowhere", b""),
        ("DELETE", "/v2/models/m/infer", b""),
        ("GET", "/v1/buckets/default/models/m", b""),
    ],
)
async def test_other_requests(gateway: Gateway, method: str, path: str, content: bytes) -> None:
    async def ask() -> None:
        await gateway.http.request(method, path, content=content, headers=gateway.bearer())

    await ask()
    with without_collector() as before:
        for _ in range(TIMES):
            await asyncio.gather(*[ask() for _ in range(TIMES)])
        await wait_for(lambda: alive() <= before)


@pytest.mark.parametrize("path", [FAST, SLOW], ids=["fast", "slow"])
async def test_whose_client_left(gateway: Gateway, path: str) -> None:
    async def ask() -> None:
        with pytest.raises(httpx.TimeoutException):
            await gateway.http.post(
                path.format("m"), content=body(7), headers=gateway.bearer(), timeout=0.2
            )

    await ask()
    with without_collector() as before:
        await asyncio.gather(*[ask() for _ in range(TIMES)])
        await wait_for(lambda: alive() <= before)


@pytest.mark.parametrize("kind", ["good", "raises", "late", "invalid", "unreadable"])
async def test_over_grpc(gateway: Gateway, kind: str) -> None:
    """Large messages, whose memory can be seen: grpc keeps a little of a call that it ended."""
    first = {"raises": 13, "late": 7}.get(kind, 1)
    data = np.full(SIZE // 4, first, "<f4").tobytes()
    request = inference.ModelInferRequest(model_name="m", raw_input_contents=[data])
    shape = [7] if kind == "invalid" else [1, SIZE // 4]
    request.inputs.add(name="x", datatype="FP32", shape=shape)
    if kind == "unreadable":
        request.inputs.add(name="y", datatype="FP32", shape=[1])
    timeout = 0.1 if kind == "late" else 10
    metadata = list(gateway.bearer().items())
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(gateway.grpc_address, options=options) as channel:
        ask: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=inference.ModelInferRequest.SerializeToString,
        )

        async def some(count: int) -> None:
            for _ in range(count):
                await ask(request, metadata=metadata, timeout=timeout).code()
                gateway.upstreams.calls.clear()

        async def growth() -> int:
            before = resident()
            await some(40)
            return resident() - before

        await some(10)
        with without_collector():
            # What is kept grows by 40 messages each time; what malloc gathers does so only once.
            for _ in range(3):
                grown = await growth()
                if grown < 10 * SIZE:
                    break
            assert grown < 10 * SIZE


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
