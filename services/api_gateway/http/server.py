"""Serves HTTP on one listening socket, inside the process' own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.connections import Connections, Limits
from services.api_gateway.http.exchange import FastWay
from services.api_gateway.http.heads import KnownHeads
from services.api_gateway.http.protocol import HttpConnection
from services.api_gateway.http.request import HttpRequest
from services.chassis.config import CannotListen
from services.chassis.telemetry import LookUps

# Connections that the kernel holds until they are accepted: a common default, and more than arrive
# while the event loop is busy for a tenth of a second.
_BACKLOG = 2048
# Bytes of an unwanted body that are read, at least, before its connection is closed: as many as
# the largest body that the default settings allow.
_LINGER_BYTES = 64 * 1024 * 1024


class HttpServer:
    """The HTTP server of the gateway."""

    def __init__(
        self,
        serve: Callable[[HttpRequest], Awaitable[None]],
        settings: GatewaySettings,
        metrics: CollectorRegistry,
        fast: FastWay | None = None,
    ) -> None:
        """Has each request served by `fast`, where that takes it, or else by `serve`."""
        self._serve = serve
        self._fast = fast
        self._listen = settings.http_listen
        self._drain_seconds = max(1.0, settings.drain_seconds)
        self._limits = Limits(
            settings.max_header_bytes,
            settings.header_seconds,
            max(_LINGER_BYTES, 2 * settings.max_body_bytes),
        )
        self._heads = KnownHeads()
        LookUps(
            metrics,
            "stellwerk_http_known_heads",
            "Request heads looked up among those that the parser accepted before",
            lambda: (self._heads.hits, self._heads.misses),
        )
        self._connections = Connections()
        self._server: asyncio.Server | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Binds and serves. Raises CannotListen if the address cannot be bound."""
        sock = self._bind()
        self.port = int(sock.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=sock, backlog=_BACKLOG)
        self._connections.start()

    def _connection(self) -> HttpConnection:
        return HttpConnection(self._connections, self._heads, self._limits, self._serve, self._fast)

    def _bind(self) -> socket.socket:
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        try:
            return socket.create_server(
                (host, int(port)),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=_BACKLOG,
            )
        except OSError as exc:
            raise CannotListen(
                f"STELLWERK_HTTP_LISTEN: {self._listen} cannot be bound:"
                f" {exc.strerror or 'is it in use?'}"
            ) from None

    async def stop(self) -> None:
        """Takes no new connections, finishes the requests being served, then ends. May be called
        twice.
        """
        if self._server is None:
            return
        if self._stopping is None:
            self._server.close()
            self._stopping = asyncio.create_task(self._connections.stop(self._drain_seconds))
        await asyncio.shield(self._stopping)
