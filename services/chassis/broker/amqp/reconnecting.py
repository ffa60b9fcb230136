"""Connections and channels that come back: both are opened anew, with backoff, when they close.

A channel is set up anew whenever it was closed, with its connection or alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from services.chassis import background
from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.connection import ConnectFailed, Connection
from stellwerk.wire.errors import BrokerDown, Conflict

# Seconds without a byte from the broker. It sends heartbeats every 5 s, so 10 s can pass in health;
# after 11 s readiness says so, after 16 s the connection is given up.
_SILENT_SECONDS = 11.0
_DEAD_SECONDS = 16.0
# Seconds between two looks at how long the broker has been silent.
_WATCH_SECONDS = 1.0
# Seconds of an outage in which callers wait for the reconnect; later ones get BrokerDown at once.
_GRACE_SECONDS = 2.0
# Seconds that the broker gets to set a channel up, and to close a connection.
_SETUP_SECONDS = 5.0
_CLOSE_SECONDS = 2.0

_log = structlog.get_logger("broker")


class KeptConnection:
    """One connection, kept open from `start` to `close`.

    `problem` is one sentence on why it cannot be used, "" while it can; `blocked` is True while the
    broker takes no messages from it. Both are attributes because every publish reads them.
    """

    def __init__(self, url: str, where: str, name: str, on_lost: Callable[[str], None]) -> None:
        self._url = url
        self._where = where
        self._name = name
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._down_since = 0.0
        self._task: asyncio.Task[None] | None = None
        self.problem = f"RabbitMQ at {where} is not connected yet"
        self.blocked = False
        self.server = ""

    async def start(self) -> None:
        """Connects in the background."""
        loop = asyncio.get_running_loop()
        self._down_since = loop.time()
        self._task = loop.create_task(self._keep())

    async def close(self) -> None:
        """Closes the connection for good."""
        if self._task is not None:
            await background.end(self._task)
        connection = self._connection
        self._connection = None
        if connection is not None:
            await connection.close(_CLOSE_SECONDS)

    def down(self) -> BrokerDown:
        """Returns the error for a caller that cannot be served."""
        problem = self.problem or f"RabbitMQ at {self._where} does not answer"
        return BrokerDown(f"{problem}; try again shortly")

    async def connection(self) -> Connection:
        """Returns the open connection, as soon as there is one."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    def patience(self, timeout: float) -> float:
        """Returns the seconds that a caller with this timeout should wait for the connection.

        The first moments of an outage are waited for; a longer outage is not.
        """
        if self._up.is_set():
            return timeout
        lasted = asyncio.get_running_loop().time() - self._down_since
        return max(min(timeout, _GRACE_SECONDS - lasted), 0)

    async def unblocked(self) -> None:
        """Returns once the broker takes messages from this connection."""
        await self._unblocked.wait()

    async def _keep(self) -> None:
        await background.run_forever(self._connect, self._failed, expected=ConnectFailed)

    async def _connect(self, succeeded: Callable[[], None]) -> None:
        """Connects and waits for the end of the connection. Raises ConnectFailed."""
        connection = await Connection.open(self._url, self._name, self._on_blocked)
        succeeded()
        self._connection = connection
        self.server = connection.server
        self.problem = ""
        self._up.set()
        _log.info("broker_connected", broker=self._where, connection=self._name, server=self.server)
        reason = await self._watch(connection)
        self._up.clear()
        self._connection = None
        self._down_since = asyncio.get_running_loop().time()
        self._on_blocked("")
        self.problem = f"RabbitMQ at {self._where} was lost and is being reconnected"
        _log.warning("broker_lost", broker=self._where, connection=self._name, cause=reason)
        self._on_lost(reason)

    def _failed(self, error: Exception, repeats: bool) -> None:
        if not repeats:
            _log.warning(
                "broker_unreachable", broker=self._where, connection=self._name, cause=str(error)
            )
        self.problem = f"RabbitMQ at {self._where} cannot be used: {error}"

    def _on_blocked(self, reason: str) -> None:
        self.blocked = bool(reason)
        if reason:
            self._unblocked.clear()
            self.problem = f"RabbitMQ at {self._where} takes no messages: {reason}"
        else:
            self._unblocked.set()
            self.problem = ""

    async def _watch(self, connection: Connection) -> str:
        """Returns the reason for which the connection closed; ends it when the broker is silent."""
        loop = asyncio.get_running_loop()
        received = connection.bytes_received
        heard_at = loop.time()
        told = False
        while not connection.closed.done():
            await asyncio.wait([connection.closed], timeout=_WATCH_SECONDS)
            if connection.bytes_received != received:
                received = connection.bytes_received
                heard_at = loop.time()
            silent = loop.time() - heard_at
            if silent > _SILENT_SECONDS:
                self.problem = f"RabbitMQ at {self._where} has been silent for {silent:.0f} s"
                told = True
            elif told:
                self._on_blocked(connection.blocked)
                told = False
            if silent > _DEAD_SECONDS:
                connection.drop()
        return connection.closed.result()


class KeptChannel:
    """A channel with its set-up (declarations, consumers, confirms), open while its connection is.

    `current` is the open channel, None while there is none; it may have closed a moment ago.
    """

    def __init__(
        self,
        connection: KeptConnection,
        setup: Callable[[Channel], Awaitable[None]],
        on_closed: Callable[[ChannelGone], None] | None = None,
    ) -> None:
        self._connection = connection
        self._setup = setup
        self._on_closed = on_closed
        self._ready = asyncio.Event()
        self._refused: Conflict | None = None
        self._task: asyncio.Task[None] | None = None
        self.current: Channel | None = None

    def start(self) -> None:
        """Opens the channel in the background."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def ready(self, timeout: float) -> Channel:
        """Returns the open channel, waiting for it up to `timeout` seconds.

        Raises BrokerDown, or Conflict if the last set-up was refused for its arguments.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if self.current is not None and not self.current.is_open:
                    self._ready.clear()  # closed a moment ago; `_keep` is about to notice
                await self._ready.wait()
        if self.current is not None and self.current.is_open:
            return self.current
        raise self._refused or self._connection.down()

    async def leave(self) -> Channel | None:
        """Stops keeping the channel; returns it if it is open."""
        if self._task is not None:
            await background.end(self._task)
        channel = self.current
        self.current = None
        self._ready.clear()
        return channel if channel is not None and channel.is_open else None

    async def stop(self) -> None:
        """Closes the channel for good."""
        channel = await self.leave()
        if channel is not None:
            channel.close()

    async def _keep(self) -> None:
        await background.run_forever(self._open, self._failed, expected=(ChannelGone, TimeoutError))

    async def _open(self, succeeded: Callable[[], None]) -> None:
        """Opens a channel, sets it up and waits for its end. Raises ChannelGone, TimeoutError."""
        connection = await self._connection.connection()
        channel = None
        try:
            async with asyncio.timeout(_SETUP_SECONDS):
                channel = await connection.channel()
                await self._setup(channel)
        except BaseException:
            if channel is not None:
                channel.close()
            raise
        succeeded()
        self._refused = None
        self.current = channel
        self._ready.set()
        gone = await asyncio.shield(channel.closed)
        self.current = None
        self._ready.clear()
        if gone.code:
            _log.warning("broker_closed_channel", code=gone.code, cause=gone.text)
        if self._on_closed is not None:
            self._on_closed(gone)

    def _failed(self, error: Exception, repeats: bool) -> None:
        if not isinstance(error, ChannelGone) or not error.code:
            return
        if not repeats:
            _log.warning("broker_refused_channel", code=error.code, cause=error.text)
        self._refused = refused(error)
        if self._refused is not None:
            # Wakes those who wait for the channel, to be refused.
            self._ready.set()
            self._ready.clear()


def refused(gone: ChannelGone) -> Conflict | None:
    """Returns the error for a refused declaration; None if the channel closed otherwise."""
    if gone.code == 406:
        return Conflict("the queue exists with other arguments; delete it or use those")
    if gone.code == 405:
        return Conflict("the queue belongs to another connection; use one of your own")
    return None
