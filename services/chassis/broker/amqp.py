"""pika made awaitable: one connection, its channels, and their calls as coroutines. The only file that knows pika.

Nothing here reconnects or retries: a closed channel or connection says so, once, to whoever uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

from services.chassis.broker.port import Message
from services.wire.topology import QueueSpec

# A consumer that froze gives its messages back after three of these: 30 s, not the default's 180 s.
HEARTBEAT_SECONDS = 10
_CONNECT_SECONDS = 5
_TRANSIENT = 1
# What a socket takes at once; pika copies the rest of what it does not.
_SEND_BYTES = 64 * 1024

OnDelivery = Callable[[int, bool, str, Message], None]


class ConnectFailed(Exception):
    """The broker could not be reached or let us not in."""


class ChannelGone(Exception):
    """The channel is closed; `code` is the broker's reply code, 0 if it did not say why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class _Gathering(AsyncioConnection):  # type: ignore[misc]
    """Sends what one turn of the loop produced together; pika alone makes a system call for each of its frames."""

    def __init__(self, *arguments: Any, custom_ioloop: asyncio.AbstractEventLoop, **named: Any) -> None:
        self._gathered: list[bytes] = []
        self._turn = custom_ioloop
        super().__init__(*arguments, custom_ioloop=custom_ioloop, **named)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._gathered:
            self._turn.call_soon(self._send_gathered)
        self._gathered.append(data)

    def _send_gathered(self) -> None:
        data, self._gathered = b"".join(self._gathered), []
        if self._transport is not None:  # gone when the connection ended within this turn
            for at in range(0, len(data), _SEND_BYTES):
                super()._adapter_emit_data(data[at : at + _SEND_BYTES])


class Connection:
    """An open connection. `closed` is done, with the reason, when it is no more."""

    def __init__(self, connection: AsyncioConnection, closed: asyncio.Future[str]) -> None:
        self._connection = connection
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
        # Publishers wait no longer than their own timeouts while the broker blocks us; the connection itself stays.
        parameters.blocked_connection_timeout = None
        parameters.client_properties = {"connection_name": name}
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[ConnectFailed | None] = loop.create_future()
        closed: asyncio.Future[str] = loop.create_future()
        raw = _Gathering(
            parameters,
            on_open_callback=lambda _: _fulfil(opened, None),
            on_open_error_callback=lambda _, error: _fulfil(opened, _connect_failed(error)),
            on_close_callback=lambda _, error: _fulfil(closed, type(error).__name__),
            custom_ioloop=loop,
        )
        try:
            failed = await asyncio.shield(opened)
        except asyncio.CancelledError:
            # pika cannot be stopped half-way into a handshake; what it opens, if anything, is closed at once.
            opened.add_done_callback(lambda done: done.result() or raw.close())
            raise
        if failed is not None:
            raise failed
        return Connection(raw, closed)

    @property
    def server(self) -> str:
        """Such as "RabbitMQ 4.0.5"."""
        properties = self._connection.server_properties or {}
        return f"{_text(properties.get('product', 'AMQP'))} {_text(properties.get('version', ''))}".strip()

    @property
    def bytes_received(self) -> int:
        return int(self._connection.bytes_received)

    async def channel(self) -> Channel:
        """A new channel. Raises ChannelGone if the connection does not live to see it."""
        opened: asyncio.Future[ChannelGone | None] = asyncio.get_running_loop().create_future()
        try:
            raw = self._connection.channel(on_open_callback=lambda _: _fulfil(opened, None))
        except AMQPError as exc:
            raise ChannelGone(0, "the connection is closed") from exc
        channel = Channel(raw)
        channel.closed.add_done_callback(lambda closed: _fulfil(opened, closed.result()))
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
        if not self._connection.is_closed:
            # pika offers nothing public that does not wait for the peer.
            self._connection._terminate_stream(ConnectionError("the broker is silent"))

    def _on_blocked(self, _: object, frame: Any) -> None:
        self.blocked = _text(frame.method.reason) or "an alarm"
        self.unblocked.clear()

    def _on_unblocked(self, _: object, __: object) -> None:
        self.blocked = ""
        self.unblocked.set()


class Channel:
    """An open channel. `closed` is done, with the ChannelGone to raise, when it is no more."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._calls: set[asyncio.Future[Any]] = set()
        self.closed: asyncio.Future[ChannelGone] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        return bool(self._raw.is_open)

    async def declare_queue(self, spec: QueueSpec) -> None:
        """Declares a queue; ChannelGone 406 if it exists with other arguments, 405 if it is another connection's."""
        arguments: dict[str, object] = {}
        if spec.max_length:
            arguments |= {"x-max-length": spec.max_length, "x-overflow": "reject-publish"}
        if spec.expires_ms:
            arguments["x-expires"] = spec.expires_ms
        await self._call(
            self._raw.queue_declare, spec.name, durable=spec.durable, exclusive=spec.exclusive, arguments=arguments
        )

    async def declare_own_queue(self) -> str:
        """A queue that goes away with its consumer, under a name that the broker chooses."""
        declared = await self._call(self._raw.queue_declare, "", exclusive=True, auto_delete=True)
        return str(declared.method.queue)

    async def inspect_queue(self, name: str) -> tuple[int, int]:
        """Messages and consumers; ChannelGone 404 if there is no such queue."""
        found = await self._call(self._raw.queue_declare, name, passive=True)
        return found.method.message_count, found.method.consumer_count

    async def declare_topics(self, exchange: str) -> None:
        await self._call(self._raw.exchange_declare, exchange, exchange_type="topic", durable=True)

    async def bind(self, queue: str, exchange: str, pattern: str) -> None:
        await self._call(self._raw.queue_bind, queue, exchange, routing_key=pattern)

    async def consume(self, queue: str, on_delivery: OnDelivery, *, prefetch: int, auto_ack: bool = False) -> None:
        """Starts deliveries. When the broker ends them, the channel closes."""

        def on_message(_: object, method: Any, properties: Any, body: bytes) -> None:
            on_delivery(method.delivery_tag, method.redelivered, method.routing_key, _message(properties, body))

        if prefetch:
            await self._call(self._raw.basic_qos, prefetch_count=prefetch)
        self._raw.add_on_cancel_callback(lambda _: self.close())
        await self._call(self._raw.basic_consume, queue, on_message, auto_ack=auto_ack)

    async def cancel_consumers(self) -> None:
        """Ends deliveries; the channel stays for what is in hand."""
        for tag in list(self._raw.consumer_tags):
            await self._call(self._raw.basic_cancel, tag)

    async def confirms(self, on_confirm: Callable[[int, bool, bool], None], on_return: Callable[[str], None]) -> None:
        """Switches confirms on: on_confirm(tag, multiple, accepted); on_return(mark) precedes its confirm."""

        def on_answer(frame: Any) -> None:
            on_confirm(frame.method.delivery_tag, frame.method.multiple, frame.method.NAME == "Basic.Ack")

        self._raw.add_on_return_callback(lambda _, __, properties, ___: on_return(properties.app_id or ""))
        await self._call(self._raw.confirm_delivery, on_answer)

    def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool, mark: str) -> None:
        """Sends without waiting. `mark` comes back with the message if nothing takes it. Raises ChannelGone."""
        properties = BasicProperties(
            headers=dict(message.headers) or None,
            delivery_mode=_TRANSIENT,
            reply_to=message.reply_to or None,
            correlation_id=message.correlation_id or None,
            expiration=str(message.expiration_ms) if message.expiration_ms else None,
            message_id=message.message_id or None,
            app_id=mark or None,
        )
        try:
            self._raw.basic_publish(exchange, routing_key, message.body, properties, mandatory)
        except AMQPError as exc:
            raise ChannelGone(0, "the channel is closed") from exc

    def ack(self, tag: int) -> None:
        if self._raw.is_open:
            self._raw.basic_ack(tag)

    def reject(self, tag: int, *, requeue: bool) -> None:
        if self._raw.is_open:
            self._raw.basic_reject(tag, requeue=requeue)

    def close(self) -> None:
        if self._raw.is_open:
            self._raw.close()

    async def _call(self, send: Callable[..., object], *arguments: object, **named: object) -> Any:
        """Sends with a `callback` and waits for it. Raises ChannelGone."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)
        try:
            send(*arguments, **named, callback=partial(_fulfil, answer))
            return await answer
        except AMQPError as exc:
            raise ChannelGone(0, "the channel is closed") from exc
        finally:
            self._calls.discard(answer)

    def _on_closed(self, _: object, reason: Any) -> None:
        gone = ChannelGone(getattr(reason, "reply_code", 0), getattr(reason, "reply_text", type(reason).__name__))
        for answer in self._calls:
            if not answer.done():
                answer.set_exception(gone)
        if not self.closed.done():
            self.closed.set_result(gone)


def _fulfil(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _message(properties: Any, body: bytes) -> Message:
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
