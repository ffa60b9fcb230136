"""One consumer on RabbitMQ: a channel of its own, so that its prefetch and its mishaps concern
nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.link import KeptChannel, Link
from services.chassis.broker.port import Handler, Message
from services.chassis.broker.received import Handling, Received


class _Delivery:
    """See `port.Delivery`. It knows its channel, and forgets it once it is settled."""

    __slots__ = ("_channel", "_consumer", "_tag", "message", "redelivered", "routing_key")

    def __init__(
        self,
        message: Message,
        redelivered: bool,
        routing_key: str,
        consumer: AmqpConsumer,
        on: Channel,
        tag: int,
    ) -> None:
        self.message, self.redelivered, self.routing_key = message, redelivered, routing_key
        self._consumer, self._tag = consumer, tag
        self._channel: Channel | None = on

    def ack(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.ack(self._tag)
            self._consumer.settled(channel)

    def nack(self, *, requeue: bool) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.reject(self._tag, requeue=requeue)
            self._consumer.settled(channel)


class AmqpConsumer:
    """See `port.Consumer`. `declare` makes the queue anew on each channel and says its name;
    prefetch None: no acks.
    """

    def __init__(
        self,
        link: Link,
        handling: Handling,
        declare: Callable[[Channel], Awaitable[str]],
        handler: Handler,
        prefetch: int | None,
    ) -> None:
        self._link, self._handling, self._declare = link, handling, declare
        self._handler, self._prefetch = handler, prefetch
        self._kept = KeptChannel(link, self._set_up)
        self._leaving: Channel | None = None

    async def start(self, timeout: float) -> None:
        """Raises BrokerDown if it does not consume within the timeout, Conflict if the queue is a
        different one.
        """
        self._kept.start()
        await self._kept.ready(timeout)

    async def cancel(self) -> None:
        channel = await self._kept.leave()
        if channel is None:
            return
        self._leaving = channel
        try:
            async with asyncio.timeout(1.0):
                await channel.cancel_consumers()
        except (ChannelGone, TimeoutError):
            channel.close()
        channel.close_when_settled()

    async def stop(self) -> None:
        """Closes the channel; what is in hand goes back to the queue."""
        await self._kept.stop()
        if self._leaving is not None:
            self._leaving.close()

    def settled(self, channel: Channel) -> None:
        """A delivery of this channel was settled; the last one of a cancelled consumer closes
        it.
        """
        if channel is self._leaving:
            channel.close_when_settled()

    async def _set_up(self, channel: Channel) -> None:
        def on_delivery(tag: int, redelivered: bool, routing_key: str, message: Message) -> None:
            self._handling.run(
                self._handler, _Delivery(message, redelivered, routing_key, self, channel, tag)
            )

        def on_settled(_: int, redelivered: bool, routing_key: str, message: Message) -> None:
            self._handling.run(self._handler, Received(message, redelivered, routing_key, None))

        queue = await self._declare(channel)
        if self._prefetch is None:
            await channel.consume(queue, on_settled, prefetch=0, acks=False)
        else:
            await channel.consume(queue, on_delivery, prefetch=self._prefetch)
