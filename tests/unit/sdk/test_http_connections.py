"""Connections over HTTP: hundreds of calls at once share at most 64,
which stay.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stellwerk.client import connect, connect_async
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.http import HttpTransport
from stellwerk.client.transport.rest import MAX_CONNECTIONS
from stellwerk.repository.v1.repository_service_pb2 import DownloadArtifactRequest
from tests.unit.sdk.fake_platform import TOKEN, FakePlatform

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class CountingServer:
    """Answers each request with an empty JSON object, and counts connections and requests."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            self.requests += 1
            writer.write(ANSWER)
            await writer.drain()


@pytest.fixture
async def counting() -> AsyncIterator[CountingServer]:
    counting = CountingServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await counting.serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    counting.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield counting
    server.close()


async def test_hundreds_of_calls_at_once_share_64_connections_that_stay(
    counting: CountingServer,
) -> None:
    async with connect_async(counting.url, "t") as client:
        for _ in range(3):
            await asyncio.gather(*(client.runtimes() for _ in range(300)))

    assert counting.requests == 900
    assert counting.connections <= 64


async def test_a_cancelled_call_gives_up_its_connection(unused_tcp_port: int) -> None:
    hung_up = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end: the client hangs up
        hung_up.set()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", unused_tcp_port)
    async with connect_async(f"http://127.0.0.1:{unused_tcp_port}", "t") as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.runtimes(), 0.2)
        await asyncio.wait_for(hung_up.wait(), 10)
    server.close()


async def test_a_download_that_is_given_up_frees_its_place_in_the_pool(
    http_url: str, platform: FakePlatform, pipeline: Any
) -> None:
    with connect(http_url, TOKEN) as client:
        stored = client.models.put(pipeline, "iris")
    platform.artifacts[stored.name] = b"x" * (1 << 20)
    transport = HttpTransport(Endpoint(http_url, TOKEN))
    request = DownloadArtifactRequest(name=stored.name)

    for _ in range(MAX_CONNECTIONS + 1):
        pieces = transport.download(request, 5)
        assert next(pieces)
        pieces.close()

    assert sum(map(len, transport.download(request, 5))) == 1 << 20
    transport.close()
