"""Serves an ASGI application with uvicorn inside the process' own event loop.

It differs from uvicorn alone: no signal handlers, and the protocol of `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.protocol import bounded_head_protocol
from services.chassis.config import CannotListen

# Seconds after which an idle connection is closed: longer than the 60 seconds of common load
# balancers, so that they close first and send no request into a closing connection.
_KEEP_ALIVE_SECONDS = 75
# Connections that the kernel holds until they are accepted; uvicorn's default.
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers, since the process has its own, and with an event
    that is set when it listens.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """An ASGI application on one listening socket."""

    def __init__(self, app: Any, settings: GatewaySettings) -> None:
        self._listen = settings.http_listen
        config = uvicorn.Config(
            app,
            http=bounded_head_protocol(settings.max_header_bytes, settings.header_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
            backlog=_BACKLOG,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Binds and serves. Raises CannotListen if the address cannot be bound."""
        sock = self._bind()
        self.port = int(sock.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]), name="http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await self._task

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
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task
