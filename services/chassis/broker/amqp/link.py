"""Connections and channels that come back: a `Link` keeps one connection up, a `KeptChannel` one
channel on it.

A channel is set up anew whenever it was closed, be it with its connection or alone under it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.connection import ConnectFailed, Connection
from services.chassis.broker.backoff import Backoff
from stellwerk.wire.errors import BrokerDown, Conflict

# The broker sends heartbeats every 5 s, so a pause of 10 s can happen; a longer one is its silence.
_SILENT_SECONDS, _DEAD_SECONDS = 11.0, 16.0
_WATCH_SECONDS = 1.0
# In the first moments of an outage callers wait for the reconnect; later they are told at once.
_GRACE_SECONDS = 2.0
_SETUP_SECONDS = 5.0
_CLOSE_SECONDS = 2.0

_log = structlog.get_logger("broker")


class Link:
    """One connection, kept up from `start` to `close`."""

    def __init__(self, url: str, where: str, name: str, on_lost: Callable[[str], None]) -> None:
        self._url, self._where, self._name, self._on_lost = url, where, name, on_lost
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._down_since = 0.0
        self._trouble = "is not connected yet"
        self._task: asyncio.Task[None] | None = None
        self.server = ""

    @property
    def problem(self) -> str:
        """Why the connection cannot be used, one sentence; "" when it can."""
        if self._trouble:
            return f"RabbitMQ at {self._where} {self._trouble}"
        if self._connection is not None and self._connection.blocked:
            return f"RabbitMQ at {self._where} takes no messages: {self._connection.blocked}"
        return ""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._down_since = loop.time()
        self._task = loop.create_task(self._keep())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(_CLOSE_SECONDS)

    def down(self) -> BrokerDown:
        """The error for a caller who cannot be served."""
        return BrokerDown(
            f"{self.problem or f'RabbitMQ at {self._where} does not answer'}; try again shortly"
        )

    async def connection(self) -> Connection:
        """The open connection, whenever there is one."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    def patience(self, timeout: float) -> float:
        """How long a caller with this timeout should wait for the link: not for an outage that has
        lasted a while.
        """
        if self._up.is_set():
            return timeout
        lasted = asyncio.get_running_loop().time() - self._down_since
        return max(min(timeout, _GRACE_SECONDS - lasted), 0)

    async def unblocked(self) -> None:
        """Returns when the broker takes messages from this connection."""
        if self._connection is not None:
            await self._connection.unblocked.wait()

    @property
    def blocked(self) -> bool:
        return self._connection is not None and bool(self._connection.blocked)

    async def _keep(self) -> None:
        loop, backoff = asyncio.get_running_loop(), Backoff()
        while True:
            try:
                connection = await Connection.open(self._url, self._name)
            except ConnectFailed as exc:
                self._note(f"cannot be used: {exc}")
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._connection, self._trouble, self.server = connection, "", connection.server
            self._up.set()
            _log.info(
                "broker connected", broker=self._where, connection=self._name, server=self.server
            )
            reason = await self._watch(connection)
            self._up.clear()
            self._connection, self._trouble, self._down_since = (
                None,
                "was lost and is being reconnected",
                loop.time(),
            )
            _log.warning("broker lost", broker=self._where, connection=self._name, cause=reason)
            self._on_lost(reason)

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning(
                "broker unreachable", broker=self._where, connection=self._name, cause=trouble
            )
        self._trouble = trouble

    async def _watch(self, connection: Connection) -> str:
        """Waits for the end of the connection, and brings it about when the broker has fallen
        silent.
        """
        loop = asyncio.get_running_loop()
        received, heard_at = connection.bytes_received, loop.time()
        while not connection.closed.done():
            await asyncio.wait([connection.closed], timeout=_WATCH_SECONDS)
            if connection.bytes_received != received:
                received, heard_at = connection.bytes_received, loop.time()
            silent = loop.time() - heard_at
            self._trouble = (
                f"has been silent for {silent:.0f} s" if silent > _SILENT_SECONDS else ""
            )
            if silent > _DEAD_SECONDS:
                connection.drop()
        return connection.closed.result()


class KeptChannel:
    """A channel with its set-up (declarations, consumers, confirms), open whenever its link is."""

    def __init__(
        self,
        link: Link,
        setup: Callable[[Channel], Awaitable[None]],
        on_closed: Callable[[ChannelGone], None] | None = None,
    ) -> None:
        self._link, self._setup, self._on_closed = link, setup, on_closed
        self._channel: Channel | None = None
        self._ready = asyncio.Event()
        self._refused: Conflict | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Channel | None:
        """The channel if it is open now."""
        return self._channel if self._channel is not None and self._channel.is_open else None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def ready(self, timeout: float) -> Channel:
        """The open channel. Raises BrokerDown, or Conflict if the last set-up failed for arguments
        that differ.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if self._channel is not None and not self._channel.is_open:
                    self._ready.clear()  # closed a moment ago; the keeper is about to notice
                await self._ready.wait()
        if self.current is not None:
            return self.current
        raise self._refused or self._link.down()

    async def leave(self) -> Channel | None:
        """Stops keeping, and hands over the channel if it is open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        channel, self._channel = self.current, None
        self._ready.clear()
        return channel

    async def stop(self) -> None:
        """Closes the channel for good."""
        channel = await self.leave()
        if channel is not None:
            channel.close()

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            channel = None
            try:
                async with asyncio.timeout(_SETUP_SECONDS):
                    channel = await connection.channel()
                    await self._setup(channel)
            except asyncio.CancelledError:
                if channel is not None:
                    channel.close()
                raise
            except (ChannelGone, TimeoutError) as exc:
                if channel is not None:
                    channel.close()
                self._note(exc)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._channel, self._refused = channel, None
            self._ready.set()
            gone = await asyncio.shield(channel.closed)
            self._channel = None
            self._ready.clear()
            if gone.code:
                _log.warning("broker closed a channel", code=gone.code, cause=gone.text)
            if self._on_closed is not None:
                self._on_closed(gone)

    def _note(self, exc: Exception) -> None:
        if isinstance(exc, ChannelGone) and exc.code:
            _log.warning("broker refused a channel's set-up", code=exc.code, cause=exc.text)
            self._refused = refused(exc)
            if self._refused is not None:
                self._ready.set()
                self._ready.clear()


def refused(gone: ChannelGone) -> Conflict | None:
    """What a refused declaration means to the caller; None for a channel that closed for another
    reason.
    """
    if gone.code == 406:
        return Conflict("the queue exists with other arguments; delete it or use those")
    if gone.code == 405:
        return Conflict("the queue belongs to another connection; use one of your own")
    return None
