"""pika made awaitable, on the event loop's own transport: a connection and how it opens. The only
file that knows pika.

Nothing here reconnects or retries: a closed connection says so, once, to whoever uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from socket import socket
from ssl import SSLContext
from typing import Any

from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter
from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

from services.chassis.broker.amqp.channel import Channel, ChannelGone, fulfil
from services.chassis.broker.amqp.stream import Stream
from services.chassis.broker.port import Message

# A consumer that froze gives its messages back after three of these: 30 s, not the default's 180 s.
HEARTBEAT_SECONDS = 10
_CONNECT_SECONDS = 5


class ConnectFailed(Exception):
    """The broker could not be reached or let us not in."""


class _Services(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """The loop as pika uses it, but with transports of the loop's own: pika's cost five system
    calls for each send.
    """

    stream: Stream

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket,
        on_done: Callable[[object], None],
        ssl_context: SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        def on_made(stream: Stream) -> None:
            self.stream = stream
            on_done((stream, stream.get_protocol()))

        def on_connected(result: object) -> None:
            if isinstance(result, BaseException):
                on_done(result)

        connecting = self.get_native_ioloop().create_connection(
            lambda: Stream(protocol_factory(), on_made),
            sock=sock,
            ssl=ssl_context,
            server_hostname=server_hostname if ssl_context else None,
        )
        return self._schedule_and_wrap_in_io_ref(connecting, on_connected)


class _Connection(AsyncioConnection):  # type: ignore[misc]
    """Counts all that is received. pika counts its own share, and would take a busy consumer's
    broker for silent.
    """

    def __init__(
        self, services: _Services, parameters: URLParameters, **callbacks: Callable[..., None]
    ) -> None:
        self._services = services
        super().__init__(parameters, custom_ioloop=services, **callbacks)

    @property
    def bytes_received(self) -> int:
        return self._services.stream.bytes_received

    @bytes_received.setter
    def bytes_received(self, share: int) -> None:
        """What pika counts."""


class Connection:
    """An open connection. `closed` is done, with the reason, when it is no more."""

    def __init__(
        self, connection: AsyncioConnection, stream: Stream, closed: asyncio.Future[str]
    ) -> None:
        self._connection, self._stream = connection, stream
        self.closed = closed
        self.blocked = ""
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @staticmethod
    async def open(url: str, name: str) -> Connection:
        """Connects. Raises ConnectFailed with a sentence that holds no secret."""
        parameters = URLParameters(url)
        parameters.heartbeat = HEARTBEAT_SECONDS
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = _CONNECT_SECONDS
        # Publishers wait no longer than their own timeouts while the broker blocks us; the
        # connection itself stays.
        parameters.blocked_connection_timeout = None
        parameters.client_properties = {"connection_name": name}
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[ConnectFailed | None] = loop.create_future()
        closed: asyncio.Future[str] = loop.create_future()
        services = _Services(loop)
        raw = _Connection(
            services,
            parameters,
            on_open_callback=lambda _: fulfil(opened, None),
            on_open_error_callback=lambda _, error: fulfil(opened, _connect_failed(error)),
            on_close_callback=lambda _, error: fulfil(closed, type(error).__name__),
        )
        try:
            failed = await asyncio.shield(opened)
        except asyncio.CancelledError:
            # pika cannot be stopped half-way into a handshake; what it opens, if anything, is
            # closed at once.
            opened.add_done_callback(lambda done: done.result() or raw.close())
            raise
        if failed is not None:
            raise failed
        return Connection(raw, services.stream, closed)

    @property
    def server(self) -> str:
        """Such as "RabbitMQ 4.0.5"."""
        properties = self._connection.server_properties or {}
        return f"{_text(properties.get('product', 'AMQP'))} {_text(properties.get('version', ''))}".strip()

    @property
    def bytes_received(self) -> int:
        return self._stream.bytes_received

    async def channel(self) -> Channel:
        """A new channel. Raises ChannelGone if the connection does not live to see it."""
        opened: asyncio.Future[ChannelGone | None] = asyncio.get_running_loop().create_future()
        try:
            raw = self._connection.channel(on_open_callback=lambda _: fulfil(opened, None))
        except AMQPError as exc:
            raise ChannelGone(0, "the connection is closed") from exc
        channel = Channel(raw, self._stream, int(self._connection.params.frame_max), _unpack)
        channel.closed.add_done_callback(lambda closed: fulfil(opened, closed.result()))
        gone = await opened
        if gone is not None:
            raise gone
        return channel

    async def close(self, timeout: float) -> None:
        """Closes politely, and by force when the broker does not answer in time."""
        if self._connection.is_open:
            self._connection.close()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self.closed)
        except TimeoutError:
            self.drop()

    def drop(self) -> None:
        """Closes without asking the broker, for one that is silent."""
        self._stream.abort(ConnectionError("the broker is silent"))

    def _on_blocked(self, _: object, frame: Any) -> None:
        self.blocked = _text(frame.method.reason) or "an alarm"
        self.unblocked.clear()

    def _on_unblocked(self, _: object, __: object) -> None:
        self.blocked = ""
        self.unblocked.set()


def _unpack(packed: bytes, body: bytes) -> Message:
    properties = BasicProperties().decode(packed)
    headers: Mapping[str, object] = properties.headers or {}
    return Message(
        body=body,
        headers={key: _text(value) for key, value in headers.items()},
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
        expiration_ms=int(properties.expiration or 0),
        message_id=properties.message_id or "",
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _connect_failed(error: object) -> ConnectFailed:
    if isinstance(error, ProbableAuthenticationError):
        return ConnectFailed("it refused the user name or password")
    if isinstance(error, ProbableAccessDeniedError):
        return ConnectFailed("it refused access to the virtual host")
    return ConnectFailed("it does not answer")
