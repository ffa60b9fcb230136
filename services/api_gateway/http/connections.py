"""All open connections of the HTTP server: looks at them once a second, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass
from typing import Protocol

from services.api_gateway.http.response import date_line
from services.chassis.futures import settle

# Seconds between two looks at all connections: a bound in seconds may be passed by one more. A look
# at 10,000 connections takes 0.5 ms (measured 2026-11), a timer for each of them 1 µs a request.
LOOK_SECONDS = 1.0
NEVER = math.inf


class Connection(Protocol):
    """An open connection."""

    # The value of time.monotonic() from which the connection is overdue.
    expiry: float

    def expire(self) -> None:
        """Ends what is overdue."""

    def stop(self) -> None:
        """Closes the connection as soon as no request on it is being served."""

    def abort(self) -> None:
        """Closes the connection at once; what is not written yet is lost."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of each connection, in bytes and seconds."""

    head_bytes: int
    head_seconds: float
    # Of an unwanted body, which is read and dropped so that its sender reads the response.
    linger_bytes: int
    linger_seconds: float = 15.0
    # For an idle connection: longer than the 60 seconds of common load balancers, so that they
    # close first and send no request into a closing connection. One second more, because the time
    # of the last look is taken for now.
    keep_alive_seconds: float = 76.0
    # For a client to read the rest of its last response, once the connection is to be closed.
    close_seconds: float = 300.0


class WriteFlow(asyncio.Protocol):
    """Back pressure of a connection: whether its client reads what is written."""

    def __init__(self) -> None:
        # Whether the client reads its response more slowly than it is written.
        self.write_paused = False
        self._writable: asyncio.Future[None] | None = None

    def pause_writing(self) -> None:
        """Makes responses wait: the client reads more slowly than they are written."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Lets responses go on."""
        self.write_paused = False
        if self._writable is not None:
            settle(self._writable, None)
            self._writable = None

    async def writable(self) -> None:
        """Returns when what was written has mostly been sent, or the client is gone."""
        if self.write_paused:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)


class Connections:
    """The open connections, the tasks that serve their requests, and the time they all go by."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        # Whether the server takes no more requests.
        self.stopping = False
        # The time.monotonic() of the last look, and the Date header field of that time.
        self.now = time.monotonic()
        self.date_line = date_line(time.time())
        self._timer: asyncio.TimerHandle | None = None
        # Set when a connection or a task has ended.
        self.left = asyncio.Event()

    def leave(self, connection: Connection) -> None:
        """Forgets a connection that was lost."""
        self.open.discard(connection)
        self.left.set()

    def start(self) -> None:
        """Begins to look at the connections once a second."""
        self._look()

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Ends what is overdue at `now`."""
        self.now = now
        self.date_line = date_line(time.time())
        for connection in [each for each in self.open if each.expiry <= now]:
            connection.expire()

    async def stop(self, seconds: float) -> None:
        """Closes idle connections at once and the others after their response.

        Whatever is still served after `seconds` is cancelled.
        """
        self.stopping = True
        for connection in list(self.open):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.open or self.tasks:
                    self.left.clear()
                    await self.left.wait()
        for task in self.tasks:
            task.cancel()
        for connection in list(self.open):
            connection.abort()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
