"""The HTTP server on sockets and on the event loop that the services run on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.server import HttpServer
from services.chassis.config import CannotListen

REQUEST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def echo(request: HttpRequest) -> None:
    body = await request.body(1 << 24, 1e12)
    await request.respond(200, b"content-length: %d\r\n" % len(body), body)


def served(
    talk: Callable[[HttpServer, int], Awaitable[Any]],
    serve: Callable[[HttpRequest], Awaitable[None]] = echo,
    listen: str = "127.0.0.1:0",
) -> Callable[[], Any]:
    """Returns what runs a server and `talk` on uvloop, in the thread that calls it."""

    async def run() -> Any:
        settings = GatewaySettings(http_listen=listen, header_seconds=0.2, drain_seconds=1)
        server = HttpServer(serve, settings, CollectorRegistry())
        await server.start()
        try:
            return await asyncio.wait_for(talk(server, server.port), 20)
        finally:
            await server.stop()

    def in_thread() -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())

    return in_thread


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_requests_are_answered_on_one_connection(listen: str) -> None:
    async def talk(server: HttpServer, port: int) -> list[bytes]:
        host = listen.rpartition(":")[0].strip("[]")
        reader, writer = await asyncio.open_connection(host, port)
        answers = []
        for _ in range(3):
            writer.write(REQUEST)
            answers.append(await reader.readuntil(b"\r\n\r\nhi"))
        writer.write(REQUEST * 2)
        answers += [await reader.readuntil(b"\r\n\r\nhi") for _ in range(2)]
        writer.close()
        return answers

    answers = await asyncio.to_thread(served(talk, listen=listen))

    assert [answer.startswith(b"HTTP/1.1 200 OK\r\ndate: ") for answer in answers] == [True] * 5


async def test_large_bodies_go_both_ways_past_a_slow_reader() -> None:
    body = bytes(range(256)) * 40_000

    async def talk(server: HttpServer, port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(len(body))
        writer.close()
        return answer

    assert await asyncio.to_thread(served(talk)) == body


async def test_who_sends_nothing_is_closed_and_who_leaves_cancels() -> None:
    ends: asyncio.Queue[str] = asyncio.Queue()

    async def wait(request: HttpRequest) -> None:
        request.watch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.put_nowait(f"gone: {request.gone}")

    async def talk(server: HttpServer, port: int) -> tuple[bytes, str]:
        idle, other = await asyncio.open_connection("127.0.0.1", port)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        silence = await asyncio.wait_for(idle.read(), 5)
        writer.close()
        other.close()
        return silence, await ends.get()

    assert await asyncio.to_thread(served(talk, wait)) == (b"", "gone: True")


async def test_a_stop_finishes_what_is_served_and_closes_what_is_idle() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: HttpRequest) -> None:
        begun.set()
        await go_on.wait()
        await echo(request)

    async def talk(server: HttpServer, port: int) -> tuple[bytes, bytes]:
        idle, _ = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await begun.wait()
        stopping = asyncio.create_task(server.stop())
        silence = await idle.read()
        go_on.set()
        answer = await reader.read()
        await stopping
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        return silence, answer

    silence, answer = await asyncio.to_thread(served(talk, wait))

    assert silence == b""
    assert answer.endswith(b"hi") and b"connection: close" in answer


async def test_an_address_in_use_is_told_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = GatewaySettings(http_listen=f"127.0.0.1:{taken.getsockname()[1]}")
        server = HttpServer(echo, settings, CollectorRegistry())

        with pytest.raises(CannotListen, match="STELLWERK_HTTP_LISTEN"):
            await server.start()
