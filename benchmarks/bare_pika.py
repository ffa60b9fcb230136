"""Uses pika alone, the way its own documentation shows: what `benchmarks.broker` compares with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection

from services.chassis.broker.port import Message
from stellwerk.wire.topology import QueueSpec

# Messages that a consumer may hold unacknowledged, in both adapters.
PREFETCH = 256
# Seconds that an answer of the broker is waited for before the run is called broken.
PATIENCE_SECONDS = 20.0

# Called with (body, reply_to, correlation_id, ack).
OnMessage = Callable[[bytes, str, str, Callable[[], None]], None]


class Pika:
    """Publishes over one connection and consumes over another."""

    def __init__(self) -> None:
        self._connections: list[AsyncioConnection] = []
        self._publishing: Any = None
        self._confirms: dict[int, Callable[[], None]] = {}
        self._last_tag = 0

    async def start(self, url: str) -> None:
        self._publishing = await self._channel(url)
        await _called(
            lambda done: self._publishing.confirm_delivery(self._on_confirm, callback=done)
        )
        self._consuming = await self._channel(url)

    async def listen(self, queue: QueueSpec, on_message: OnMessage) -> None:
        def deliver(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            on_message(
                body,
                properties.reply_to,
                properties.correlation_id,
                lambda: None if queue.exclusive else channel.basic_ack(method.delivery_tag),
            )

        channel = self._consuming
        arguments: dict[str, Any] = {"x-expires": queue.expires_ms} if queue.expires_ms else {}
        if queue.max_length:
            arguments |= {"x-max-length": queue.max_length, "x-overflow": "reject-publish"}
        await _called(
            lambda done: channel.queue_declare(
                queue.name,
                durable=queue.durable,
                exclusive=queue.exclusive,
                arguments=arguments,
                callback=done,
            )
        )
        await _called(lambda done: channel.basic_qos(prefetch_count=PREFETCH, callback=done))
        await _called(
            lambda done: channel.basic_consume(
                queue.name, deliver, auto_ack=queue.exclusive, callback=done
            )
        )

    def send(self, queue: str, message: Message, confirmed: Callable[[], None]) -> None:
        properties = BasicProperties(
            delivery_mode=1,
            reply_to=message.reply_to or None,
            correlation_id=message.correlation_id,
            expiration=str(message.expiration_ms) if message.expiration_ms else None,
        )
        self._last_tag += 1
        self._confirms[self._last_tag] = confirmed
        self._publishing.basic_publish("", queue, message.body, properties, mandatory=True)

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0.1)

    async def _channel(self, url: str) -> Any:
        connection: Any = await _called(
            lambda done: AsyncioConnection(URLParameters(url), on_open_callback=done)
        )
        self._connections.append(connection)
        return await _called(lambda done: connection.channel(on_open_callback=done))

    def _on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        for confirmed in (
            [t for t in self._confirms if t <= tag] if frame.method.multiple else [tag]
        ):
            self._confirms.pop(confirmed)()


async def _called(begin: Callable[[Callable[[Any], None]], Any]) -> Any:
    """What a function with a callback calls back with."""
    done = asyncio.get_running_loop().create_future()
    begin(done.set_result)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await done
