"""What slow and idle connections cost another client of the gateway's HTTP server, on loopback.

Three processes, because each holds as many descriptors as there are connections: the server, the
clients that are slow or idle, and the one that is measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import uvloop
from prometheus_client import CollectorRegistry

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.server import HttpServer

_REQUEST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
_ANSWER_END = b"\r\n\r\nhi"
# Connections that are opened at once: fewer than the server's backlog.
_AT_ONCE = 500
# Seconds between two bytes of a slow head: nineteen of them arrive before its limit of 20 s. The
# connections take turns within them, as clients that know nothing of each other do.
_SLOW_SECONDS = 1.0
_TURNS = 50
# Requests of a sample. The median of many samples' percentiles tells of the server; one percentile
# of all requests would tell of whatever else the machine did at its worst moment.
_SAMPLE = 1000
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Latency:
    """The 99th percentile of a request's seconds, without and with the other connections."""

    quiet: float
    crowded: float

    @property
    def ratio(self) -> float:
        """Returns by how much the others slow a client down."""
        return self.crowded / self.quiet


def measure(slow: int, idle: int, rounds: int, samples: int) -> Latency:
    """Takes `samples` samples without and with the others, `rounds` times; returns the medians."""
    with _child(_server) as server:
        port = server.recv()
        quiet, crowded = [], []
        for _ in range(rounds):
            quiet += [_p99(port) for _ in range(samples)]
            with _child(_crowd, port, slow, idle) as crowd:
                assert crowd.recv() == slow + idle
                crowded += [_p99(port) for _ in range(samples)]
        return Latency(median(quiet), median(crowded))


@contextmanager
def _child(work: object, *args: int) -> Iterator[Connection]:
    """Runs a function in a process of its own, until it is told to end."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, *args), daemon=True)  # type: ignore[arg-type]
    process.start()
    try:
        if not here.poll(_PATIENCE):
            raise TimeoutError("a process of the soak did not begin")
        yield here
        here.send("end")
        process.join(_PATIENCE)
    finally:
        process.kill()


def _server(pipe: Connection) -> None:
    async def serve(request: HttpRequest) -> None:
        body = await request.body(1 << 20, time.monotonic() + _PATIENCE)
        await request.respond(200, b"content-length: %d\r\n" % len(body), body)

    async def run() -> None:
        settings = GatewaySettings(http_listen="127.0.0.1:0", drain_seconds=1)
        server = HttpServer(serve, settings, CollectorRegistry())
        await server.start()
        pipe.send(server.port)
        await asyncio.to_thread(pipe.recv)
        await server.stop()

    uvloop.run(run())


def _crowd(pipe: Connection, port: int, slow: int, idle: int) -> None:
    """Opens the connections, tells how many are open, and sends a byte on each slow one a second.

    An idle connection has had one answer before.
    """

    async def run() -> None:
        writers: list[asyncio.StreamWriter] = []
        for at in range(0, slow + idle, _AT_ONCE):
            count = min(_AT_ONCE, slow + idle - at)
            opened = [asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
            for reader, writer in await asyncio.gather(*opened):
                if len(writers) >= slow:
                    writer.write(_REQUEST)
                    await reader.readuntil(_ANSWER_END)
                writers.append(writer)
        pipe.send(len(writers))
        ends = asyncio.create_task(asyncio.to_thread(pipe.recv))
        turn = 0
        while not ends.done():
            at = turn // _TURNS
            for writer in writers[turn % _TURNS : slow : _TURNS]:
                writer.write(_REQUEST[at : at + 1])
            turn += 1
            await asyncio.wait([ends], timeout=_SLOW_SECONDS / _TURNS)

    uvloop.run(run())


def _p99(port: int) -> float:
    async def run() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        seconds = []
        for _ in range(_SAMPLE):
            began = time.perf_counter()
            writer.write(_REQUEST)
            await reader.readuntil(_ANSWER_END)
            seconds.append(time.perf_counter() - began)
        writer.close()
        return sorted(seconds)[int(0.99 * _SAMPLE)]

    return asyncio.run(run())
