"""The broker port on RabbitMQ: one connection publishes, another consumes.

After a reconnect all declared queues and all consumers are set up again. Queues are durable and
classic, messages transient: work that must not be lost is stored elsewhere, and its message only
says that there is some.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.consumer import AmqpConsumer
from services.chassis.broker.amqp.publisher import Publisher
from services.chassis.broker.amqp.reconnecting import KeptChannel, KeptConnection, refused
from services.chassis.broker.port import Consumer, Depth, Handler, Message
from services.chassis.broker.received import Handling
from stellwerk.wire.topology import EVENTS_EXCHANGE, QueueSpec

T = TypeVar("T")

# Seconds that the broker gets to answer a declaration, an inspection or a new consumer.
_CALL_SECONDS = 5.0
# AMQP's reply code for a queue that does not exist.
_NOT_FOUND = 404


class _NoQueue(Exception):
    """The queue does not exist."""


class AmqpBroker:
    """See `port.Broker`."""

    def __init__(self, url: str, *, name: str) -> None:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
        self._callbacks: list[Callable[[str], None]] = []
        self._publishing = KeptConnection(url, where, f"{name} publish", self._lost)
        self._consuming = KeptConnection(url, where, f"{name} consume", self._lost)
        self._publisher = Publisher(self._publishing)
        # See `port.Broker`. The publisher's own method: every message of a request is posted.
        self.post = self._publisher.post
        self._declaring = KeptChannel(self._consuming, self._declare_again)
        self._inspecting = KeptChannel(self._consuming, _no_setup)
        self._asking = asyncio.Lock()
        self._declared: dict[str, QueueSpec] = {}
        self._consumers: weakref.WeakSet[AmqpConsumer] = weakref.WeakSet()
        self._handling = Handling()

    @property
    def description(self) -> str:
        """See `port.Broker`."""
        return f"amqp ({self._publishing.server or 'RabbitMQ, not connected yet'})"

    @property
    def problem(self) -> str:
        """See `port.Broker`."""
        stalled = "RabbitMQ does not confirm messages" if self._publisher.stalled else ""
        return self._publishing.problem or self._consuming.problem or stalled

    async def start(self) -> None:
        await self._publishing.start()
        await self._consuming.start()
        self._publisher.start()
        self._declaring.start()
        self._inspecting.start()

    async def close(self) -> None:
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers))
        await self._handling.stop()
        await self._publisher.stop()
        await self._declaring.stop()
        await self._inspecting.stop()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def declare(self, queue: QueueSpec) -> None:
        # On the connection that consumes: an exclusive queue is of no use on another.
        await self._ask(self._declaring, lambda channel: channel.declare_queue(queue))
        self._declared[queue.name] = queue

    async def publish(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> None:
        await self.post(queue, message, mandatory=mandatory, timeout=timeout)

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        await self.post(
            routing_key, message, mandatory=False, timeout=timeout, exchange=EVENTS_EXCHANGE
        )

    async def consume(
        self, queue: QueueSpec, handler: Handler, *, prefetch: int, acks: bool = True
    ) -> Consumer:
        async def declare(channel: Channel) -> str:
            await channel.declare_queue(queue)
            return queue.name

        bound = prefetch if acks else None
        return await self._started(
            AmqpConsumer(self._consuming, self._handling, declare, handler, bound)
        )

    async def subscribe(self, pattern: str, handler: Handler) -> Consumer:
        async def declare(channel: Channel) -> str:
            await channel.declare_topics(EVENTS_EXCHANGE)
            name = await channel.declare_own_queue()
            await channel.bind(name, EVENTS_EXCHANGE, pattern)
            return name

        return await self._started(
            AmqpConsumer(self._consuming, self._handling, declare, handler, None)
        )

    async def inspect(self, queue: str) -> Depth:
        try:
            return Depth(
                *await self._ask(self._inspecting, lambda channel: channel.inspect_queue(queue))
            )
        except _NoQueue:
            return Depth(0, 0)

    def on_lost(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def _lost(self, reason: str) -> None:
        for callback in self._callbacks:
            callback(reason)

    async def _started(self, consumer: AmqpConsumer) -> AmqpConsumer:
        self._consumers.add(consumer)
        try:
            await consumer.start(_CALL_SECONDS)
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def _ask(self, kept: KeptChannel, question: Callable[[Channel], Awaitable[T]]) -> T:
        """Asks on a kept channel, one question at a time: a refusal closes the channel, with every
        question on it.
        """
        try:
            async with asyncio.timeout(_CALL_SECONDS), self._asking:
                channel = await kept.ready(self._consuming.patience(_CALL_SECONDS))
                return await question(channel)
        except TimeoutError:
            raise self._consuming.down() from None
        except ChannelGone as exc:
            if exc.code == _NOT_FOUND:
                raise _NoQueue from exc
            raise refused(exc) or self._consuming.down() from exc

    async def _declare_again(self, channel: Channel) -> None:
        for name, spec in list(self._declared.items()):
            try:
                await channel.declare_queue(spec)
            except ChannelGone as exc:
                if refused(exc) is not None:
                    # Somebody made another queue of that name meanwhile; it is theirs now.
                    del self._declared[name]
                raise


async def _no_setup(_: Channel) -> None:
    return
