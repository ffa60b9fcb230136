"""Serves an ASGI application with uvicorn inside the process' own loop: no signal handlers, a
bounded request head.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.request import SENDER
from services.api_gateway.http.response import Headers
from services.chassis.config import ConfigError

# A connection that is kept open and says nothing for this long is closed.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
# Up to this size a body is copied to go out with its head.
_JOINED_BYTES = 64 * 1024


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, since the process has its own, and with an event for
    when it listens.
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


class _Sender:
    """Who sends one request; see `request.Sender`."""

    __slots__ = ("cycle", "on_gone")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self.on_gone: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        return self.cycle.disconnected

    @property
    def whole(self) -> bool:
        return not self.cycle.more_body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole answer at once: ASGI's two messages would be two system calls, and as many
        wake-ups.
        """
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers + headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        if len(body) <= _JOINED_BYTES:
            cycle.transport.write(b"".join([*lines, body]))
        else:
            cycle.transport.write(b"".join(lines))
            cycle.transport.write(body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def close(self) -> None:
        """Closes the connection: what else comes over it is not wanted."""
        self.cycle.transport.close()

    def leave(self) -> None:
        """The connection is lost."""
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
            if self.on_gone is not None:
                self.on_gone()


class _Bounded(HttpToolsProtocol):
    """HTTP with a limit on a request's head, in bytes and time; httptools itself would wait for
    ever.

    A request that is being served hears at once that its sender is gone, without a task that waits
    for it.
    """

    limit: ClassVar[int]
    seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._overdue: asyncio.TimerHandle | None = None
        self._sender: _Sender | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._overdue = self.loop.call_later(self.seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)
        if self._sender is not None:
            self._sender.leave()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Requests of one connection are served one after the other.
        self._sender = _Sender(cycle)
        cycle.scope["extensions"] = {SENDER: self._sender}  # type: ignore[typeddict-item, dict-item]
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            self._in_time()
            return
        # Counted only while the head is unfinished: a piece may hold the head's end and much of the
        # body.
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
                (host, int(port)),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=_BACKLOG,
            )
        except OSError as exc:
            raise ConfigError(
                f"STELLWERK_HTTP_LISTEN: {self._listen} cannot be bound:"
                f" {exc.strerror or 'is it in use?'}"
            ) from None

    async def stop(self) -> None:
        """Takes no new connections, finishes what is in hand, then ends. Safe to call twice."""
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task
