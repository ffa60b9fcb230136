"""Serves an ASGI application with uvicorn inside the process' own loop: no signal handlers, a bounded request head."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.api_gateway.config import GatewaySettings
from services.chassis.config import ConfigError

# A connection that is kept open and says nothing for this long is closed.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, since the process has its own, and with an event for when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Bounded(HttpToolsProtocol):
    """HTTP with a limit on a request's head, in bytes and time; httptools itself would wait for ever."""

    limit: ClassVar[int]
    seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._overdue = self.loop.call_later(self.seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            self._in_time()
            return
        # Counted only while the head is unfinished: a piece may hold the head's end and much of the body.
        self._head_bytes += len(data)
        if self._head_bytes > self.limit:
            self.send_400_response("The request's headers are too large.")
        elif self._overdue is None:
            self._overdue = self.loop.call_later(self.seconds, self.transport.close)

    def _in_time(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()


def _bounded(limit: int, seconds: float) -> type[asyncio.Protocol]:
    return type("Bounded", (_Bounded,), {"limit": limit, "seconds": seconds})


class HttpServer:
    """One listening socket and what answers on it."""

    def __init__(self, app: Any, settings: GatewaySettings) -> None:
        self._listen = settings.http_listen
        config = uvicorn.Config(
            app,
            http=_bounded(settings.max_header_bytes, settings.header_seconds),
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
        """Binds and serves. Raises ConfigError if the address cannot be had."""
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
                (host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
            )
        except OSError as exc:
            raise ConfigError(
                f"STELLWERK_HTTP_LISTEN: {self._listen} cannot be bound: {exc.strerror or 'is it in use?'}"
            ) from None

    async def stop(self) -> None:
        """Takes no new connections, finishes what is in hand, then ends. Safe to call twice."""
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task
