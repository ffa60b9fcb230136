"""One AMQP connection: pika's, made awaitable, on the event loop's own transport.

This is the only file that imports pika. A connection neither reconnects nor retries: once closed it
says so to all who use it.
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

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.incoming import Incoming
from services.chassis.broker.port import Message
from services.chassis.futures import settle

# Seconds that pika and the broker agree on. The broker gives a frozen consumer's messages to others
# after two to three of them: 30 s at most, where the default of 60 s takes up to 180 s.
HEARTBEAT_SECONDS = 10
# Seconds for the TCP connection, and for each step of the handshakes above it.
_CONNECT_SECONDS = 5


class ConnectFailed(Exception):
    """The broker cannot be reached, or refuses the login."""


class _Services(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """The event loop as pika uses it, with our own transport in place of pika's."""

    incoming: Incoming

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket,
        on_done: Callable[[object], None],
        ssl_context: SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        """Makes the loop's transport on the socket and tells pika of it through `on_done`."""

        def on_made(incoming: Incoming) -> None:
            self.incoming = incoming
            on_done((incoming.outgoing, incoming.outgoing.get_protocol()))

        def on_connected(result: object) -> None:
            if isinstance(result, BaseException):
                on_done(result)

        connecting = self.get_native_ioloop().create_connection(
            lambda: Incoming(protocol_factory(), on_made),
            sock=sock,
            ssl=ssl_context,
            server_hostname=server_hostname if ssl_context else None,
        )
        return self._schedule_and_wrap_in_io_ref(connecting, on_connected)


class _Connection(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, which counts all bytes of the stream as received.

    pika would count its own frames alone and take the broker of a busy consumer for silent.
    """

    def __init__(
        self, services: _Services, parameters: URLParameters, **callbacks: Callable[..., None]
    ) -> None:
        self._services = services
        super().__init__(parameters, custom_ioloop=services, **callbacks)

    @property
    def bytes_received(self) -> int:
        """The bytes of the whole stream."""
        return self._services.incoming.bytes_received

    @bytes_received.setter
    def bytes_received(self, share: int) -> None:
        """Ignores pika's own count."""


class Connection:
    """An open connection. `closed` is done, with the reason, once it is closed.

    `blocked` is the reason for which the broker takes no messages, "" while it does.
    """

    def __init__(
        self,
        connection: AsyncioConnection,
        incoming: Incoming,
        closed: asyncio.Future[str],
        on_blocked: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._incoming = incoming
        self._tell = on_blocked
        self.closed = closed
        self.blocked = ""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @staticmethod
    async def open(url: str, name: str, on_blocked: Callable[[str], None]) -> Connection:
        """Connects; the broker shows `name` as the connection's name.

        `on_blocked` is called with each change of `blocked`. Raises ConnectFailed with a sentence
        that holds no secret.
        """
        parameters = URLParameters(url)
        parameters.heartbeat = HEARTBEAT_SECONDS
        parameters.connection_attempts = 1
        parameters.socket_timeout = _CONNECT_SECONDS
        parameters.stack_timeout = _CONNECT_SECONDS
        # While the broker blocks the connection it stays open; publishers wait for their own
        # timeouts.
        parameters.blocked_connection_timeout = None
        parameters.client_properties = {"connection_name": name}
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        closed: asyncio.Future[str] = loop.create_future()
        services = _Services(loop)
        raw = _Connection(
            services,
            parameters,
            on_open_callback=lambda _: settle(opened, None),
            on_open_error_callback=lambda _, error: settle(opened, _connect_failed(error)),
            on_close_callback=lambda _, error: settle(closed, type(error).__name__),
        )
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            # pika cannot be stopped within a handshake; a connection that it opens is closed.
            opened.add_done_callback(lambda done: done.exception() or raw.close())
            raise
        return Connection(raw, services.incoming, closed, on_blocked)

    @property
    def server(self) -> str:
        """The broker's product and version, such as "RabbitMQ 4.0.5"."""
        properties = self._connection.server_properties or {}
        product = _text(properties.get("product", "AMQP"))
        return f"{product} {_text(properties.get('version', ''))}".strip()

    @property
    def bytes_received(self) -> int:
        """The bytes received since the connection opened."""
        return self._incoming.bytes_received

    async def channel(self) -> Channel:
        """Opens a channel. Raises ChannelGone if the connection closes before it is open."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            raw = self._connection.channel(on_open_callback=lambda _: settle(opened, None))
        except AMQPError as exc:
            raise ChannelGone(0, "the connection is closed") from exc
        channel = Channel(raw, self._incoming, int(self._connection.params.frame_max), _unpack)
        channel.closed.add_done_callback(lambda closed: settle(opened, closed.result()))
        await opened
        return channel

    async def close(self, timeout: float) -> None:
        """Closes the connection; drops it if the broker does not confirm within `timeout` s."""
        if self._connection.is_open:
            self._connection.close()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self.closed)
        except TimeoutError:
            self.drop()

    def drop(self) -> None:
        """Closes without telling the broker, for a broker that is silent."""
        self._incoming.outgoing.abort(ConnectionError("the broker is silent"))

    def _on_blocked(self, _: object, frame: Any) -> None:
        self.blocked = _text(frame.method.reason) or "an alarm"
        self._tell(self.blocked)

    def _on_unblocked(self, _: object, __: object) -> None:
        self.blocked = ""
        self._tell("")


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
