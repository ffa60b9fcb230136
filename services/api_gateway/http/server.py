"""Serves an ASGI application with uvicorn inside the process' own event loop.

It differs from uvicorn alone: no signal handlers, a request head bounded in bytes and seconds, and
a whole response in one write.
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
from services.api_gateway.http.exchange import CONNECTION
from services.api_gateway.http.response import Headers
from services.chassis.config import CannotListen

# Seconds after which an idle connection is closed: longer than the 60 seconds of common load
# balancers, so that they close first and send no request into a closing connection.
_KEEP_ALIVE_SECONDS = 75
# Connections that the kernel holds until they are accepted; uvicorn's default.
_BACKLOG = 2048
# Bytes of a body up to which it is copied, to go out with its head in one system call.
_JOINED_BYTES = 64 * 1024


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


class _Connection:
    """The connection of one request; see `exchange.ClientConnection`."""

    __slots__ = ("body_arrived", "cycle", "gone", "on_gone")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self.on_gone: Callable[[], None] | None = None
        self.gone = False
        self.body_arrived = not cycle.more_body

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole response at once; ASGI's two messages would be two system calls."""
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
        """Closes the connection; bytes that the client still sends are dropped."""
        self.cycle.transport.close()

    def lose(self) -> None:
        """Tells the request, unless it has its response, that its client is gone."""
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.gone = True
            if self.on_gone is not None:
                self.on_gone()


class _BoundedHeadProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a limit on a request's head, in bytes and seconds; httptools has neither.

    A request being served hears at once that its client is gone, without a task that waits for it.
    """

    max_head_bytes: ClassVar[int]
    head_seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._overdue: asyncio.TimerHandle | None = None
        self._connection: _Connection | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._overdue = self.loop.call_later(self.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._connection is not None:
            self._connection.lose()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Requests of one connection are served one after the other.
        self._connection = _Connection(cycle)
        extensions: Any = {CONNECTION: self._connection}
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            self._stop_head_timer()
            return
        # Counted only while the head is unfinished: one read may hold the head's end and much of
        # the body.
        self._head_bytes += len(data)
        if self._head_bytes > self.max_head_bytes:
            self.send_400_response("The request's headers are too large.")
        elif self._overdue is None:
            self._overdue = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # A pipelined request completes before its own connection object exists, which reads the
        # cycle when it is made.
        if self._connection is not None and self._connection.cycle is self.cycle:
            self._connection.body_arrived = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()


def bounded_head_protocol(max_head_bytes: int, head_seconds: float) -> type[asyncio.Protocol]:
    """Returns a protocol class with these limits; uvicorn makes its objects without arguments."""
    limits = {"max_head_bytes": max_head_bytes, "head_seconds": head_seconds}
    return type("BoundedHeadProtocol", (_BoundedHeadProtocol,), limits)


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
