"""Requests made to be expensive are refused quickly, in little memory, and their neighbours hardly
notice.
"""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio

from services.api_gateway.http.status import HTTP_STATUS
from tests.journey.doors import GrpcDoor, RestDoor, door_of
from tests.journey.stack import Platform

MIB = 1024 * 1024
INFER = "/inference.GRPCInferenceService/ModelInfer"
CREATE_BUCKET = "/stellwerk.repository.v1.RepositoryService/CreateBucket"
ROUTES = ("/v2/models/iris/infer", "/v1/buckets/default/models/iris:predict", "/v1/buckets")
# Tries in which a promise must be seen once: a stall of the machine is not the platform's fault.
TRIES = 3


@dataclass(frozen=True)
class Ending:
    """How a request ended: its status, what gRPC says being told as HTTP says it, and after how
    many seconds.
    """

    status: int
    seconds: float


@pytest_asyncio.fixture(loop_scope="session")
async def rest(platform: Platform) -> AsyncIterator[RestDoor]:
    async with door_of(platform, "rest") as door:
        assert isinstance(door, RestDoor)
        yield door


@pytest_asyncio.fixture(loop_scope="session")
async def wire(platform: Platform) -> AsyncIterator[GrpcDoor]:
    async with door_of(platform, "grpc") as door:
        assert isinstance(door, GrpcDoor)
        yield door


async def posted(rest: RestDoor, path: str, body: bytes, **headers: str) -> Ending:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    began = time.perf_counter()
    status, _, data = await rest.post(path, body, headers=given)
    assert b"Traceback" not in data
    return Ending(status, time.perf_counter() - began)


async def called(
    platform: Platform, wire: GrpcDoor, method: str, body: bytes, **options: Any
) -> Ending:
    metadata = (("authorization", f"Bearer {platform.token}"), *options.pop("metadata", ()))
    began = time.perf_counter()
    try:
        await wire.channel.unary_unary(method)(body, metadata=metadata, timeout=30, **options)
    except grpc.aio.AioRpcError as exc:
        return Ending(HTTP_STATUS[exc.code()], time.perf_counter() - began)
    return Ending(200, time.perf_counter() - began)


def worked(platform: Platform) -> float:
    """CPU seconds of all services."""
    times = [psutil.Process(pid).cpu_times() for pid in platform.pids().values()]
    return sum(time.user + time.system for time in times)


async def refused(
    platform: Platform, send: Callable[[], Awaitable[Ending]], statuses: set[int], seconds: float
) -> None:
    """Fails unless each try is refused with one of `statuses`, and one within `seconds`: of the
    clock, or of the services' work where others keep the processors busy.
    """
    took: list[float] = []
    while not took or took[-1] > seconds:
        assert len(took) < TRIES, f"never refused in {seconds} s: {took}"
        before = worked(platform)
        ending = await send()
        assert ending.status in statuses
        took.append(min(ending.seconds, worked(platform) - before))


def resident(platform: Platform) -> int:
    """Bytes of the gateway and the router."""
    pids = platform.pids()
    return sum(psutil.Process(pids[name]).memory_info().rss for name in ("api_gateway", "router"))


SQUEEZED = {
    "gzip": gzip.compress(bytes(200 * MIB), compresslevel=1),
    "deflate": zlib.compress(bytes(200 * MIB), level=1),
}


async def test_what_is_too_large_leaves_nothing_behind(
    platform: Platform, rest: RestDoor, wire: GrpcDoor
) -> None:
    # As large as may be, and of no use: a process keeps some of the memory that a message took, for
    # the next one.
    await posted(rest, ROUTES[0], bytes(60 * MIB))
    await called(platform, wire, INFER, bytes(60 * MIB))
    await called(platform, wire, CREATE_BUCKET, bytes(60 * MIB))
    before = resident(platform)
    for path in ROUTES:
        for encoding, bomb in SQUEEZED.items():
            await refused(
                platform,
                lambda p=path, e=encoding, b=bomb: posted(rest, p, b, Content_Encoding=e),
                {413},
                2,
            )
        await refused(platform, lambda p=path: posted(rest, p, bytes(66 * MIB)), {413}, 2)
    for method in (INFER, CREATE_BUCKET):
        zeros = bytes(100 * MIB)
        squeezed = {"compression": grpc.Compression.Gzip}
        await refused(
            platform,
            lambda m=method, z=zeros, s=squeezed: called(platform, wire, m, z, **s),
            {429},
            2,
        )
        await refused(
            platform, lambda m=method: called(platform, wire, m, bytes(66 * MIB)), {429}, 2
        )

    assert resident(platform) - before < 50_000_000


async def test_what_never_ends_is_cut_off(platform: Platform) -> None:
    """A body in chunks that says nothing of its length, of a sender who does not listen."""
    host, port = platform.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {ROUTES[0]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {platform.token}\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    chunk, sent, most = b"100000\r\n" + bytes(MIB) + b"\r\n", 0, 400
    try:
        while sent < most:
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), 10)
            sent += 1
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()

    assert sent < most
    assert (await answer).startswith(b"HTTP/1.1 413")


JSON_BOMBS = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"inputs":' * 100_000,
    "deep and closed": b"[" * 1000 + b"]" * 1000,
    "millions of keys": b"{"
    + b",".join(b'"k%07d":0' % number for number in range(3_000_000))
    + b"}",
    "millions of lists": b'{"inputs":[' + b"[]," * 20 * MIB + b"1]}",
    "millions of objects": b'{"inputs":[' + b"{}," * 20 * MIB + b"1]}",
    "millions of numbers": b'{"inputs":[' + b"1," * 30 * MIB + b"1]}",
    "a number of a million digits": b'{"inputs":' + b"9" * 1_000_000 + b"}",
    "a key of a megabyte": b'{"' + b"k" * MIB + b'":1}',
    "a million dimensions": b'{"inputs":[{"name":"X","datatype":"FP64","shape":['
    + b"9," * MIB
    + b'1],"data":[]}]}',
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("bomb", JSON_BOMBS)
async def test_json_bombs(
    platform: Platform, rest: RestDoor, iris_stored: str, bomb: str, path: str
) -> None:
    await refused(platform, lambda: posted(rest, path, JSON_BOMBS[bomb]), {400, 413}, 1)


MESSAGE_BOMBS = {
    "empty inputs": b"\x2a\x00" * 30 * MIB,
    "empty parameters": b"\x22\x00" * 30 * MIB,
    "parameters": b"".join(b"\x22\x09\x0a\x07%07d" % number for number in range(1_000_000)),
    "groups": b"\x0b" * 1_000_000,
    "unknown fields": b"\xf8\x7f\x01" * 20 * MIB,
    "lengths that lie": b"\x2a\xff\xff\xff\xff\x07",
}


@pytest.mark.parametrize("method", [INFER, CREATE_BUCKET])
@pytest.mark.parametrize("bomb", MESSAGE_BOMBS)
async def test_message_bombs(platform: Platform, wire: GrpcDoor, bomb: str, method: str) -> None:
    await refused(
        platform, lambda: called(platform, wire, method, MESSAGE_BOMBS[bomb]), {400, 429}, 1
    )


async def test_metadata_bombs(platform: Platform, rest: RestDoor, wire: GrpcDoor) -> None:
    long, many = (("x-long", "v" * 25_000),), tuple((f"x-{number}", "v") for number in range(1000))
    for metadata in (long, many):
        await refused(
            platform, lambda m=metadata: called(platform, wire, INFER, b"", metadata=m), {429}, 1
        )
    headers = {f"X-{number}": "v" for number in range(1000)}
    await refused(platform, lambda: posted(rest, ROUTES[0], b"{}", **headers), {400, 431}, 1)
    assert (await posted(rest, ROUTES[0], b"{}", X_Long="v" * 25_000)).status == 400


async def test_neighbours_hardly_notice(
    platform: Platform, iris_stored: str, rest: RestDoor, wire: GrpcDoor
) -> None:
    """Bombs of every kind one after another, and a caller beside them that asks all the time."""

    async def asks(count: int) -> float:
        answers = [await wire.infer("iris", [[5.1, 3.5, 1.4, 0.2]]) for _ in range(count)]
        assert {answer.status for answer in answers} == {200}
        return max(answer.seconds for answer in answers)

    async def throws() -> None:
        async with door_of(platform, "rest") as own:
            assert isinstance(own, RestDoor)
            for encoding, bomb in SQUEEZED.items():
                assert (await posted(own, ROUTES[0], bomb, Content_Encoding=encoding)).status == 413
            for bomb in ("millions of lists", "millions of keys", "deep"):
                assert (await posted(own, ROUTES[0], JSON_BOMBS[bomb])).status in (400, 413)

    await asks(50)
    throwing = asyncio.create_task(throws())
    slowest = 0.0
    while not throwing.done():
        slowest = max(slowest, await asks(10))
    await throwing

    assert slowest < 2
    assert await asks(10) < 2
