"""One connection to the HTTP server without a socket: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from services.api_gateway.http.connections import Connections, Limits
from services.api_gateway.http.exchange import FastWay
from services.api_gateway.http.heads import KnownHeads
from services.api_gateway.http.protocol import HttpConnection
from services.api_gateway.http.request import HttpRequest

_DATE = re.compile(rb"date: [^\r]*\r\n")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False
        self.reading_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False


async def turns(count: int = 5) -> None:
    """Lets everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Connection:
    """One connection to a server whose requests `serve` serves."""

    def __init__(
        self,
        serve: Callable[[HttpRequest], Any],
        fast: FastWay | None = None,
        heads: KnownHeads | None = None,
    ) -> None:
        self.connections = Connections()
        self.heads = heads or KnownHeads()
        self.wire = Wire()
        limits = Limits(65536, 20.0, 1 << 20)
        self.protocol = HttpConnection(self.connections, self.heads, limits, serve, fast)
        self.protocol.connection_made(self.wire)

    @property
    def written(self) -> bytes:
        """All that was written, without the Date header."""
        return _DATE.sub(b"", b"".join(self.wire.writes))

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await turns()

    async def lose(self) -> None:
        self.protocol.connection_lost(None)
        await turns()
