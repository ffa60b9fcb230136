"""One consumer on RabbitMQ: a channel of its own, so that its prefetch and its mishaps concern nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.chassis.broker.amqp import Channel, ChannelGone
from services.chassis.broker.amqp_link import KeptChannel, Link
from services.chassis.broker.port import Handler, Message
from services.chassis.broker.received import Handling, Received


class AmqpConsumer:
    """See `port.Consumer`. `declare` makes the queue anew on each channel and says its name; prefetch None: no acks."""

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
        self._in_hand: set[tuple[Channel, int]] = set()

    async def start(self, timeout: float) -> None:
        """Raises BrokerDown if it does not consume within the timeout, Conflict if the queue is a different one."""
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
        self._close_if_done(channel)

    async def stop(self) -> None:
        """Closes the channel; what is in hand goes back to the queue."""
        await self._kept.stop()
        if self._leaving is not None:
            self._leaving.close()

    async def _set_up(self, channel: Channel) -> None:
        def on_delivery(tag: int, redelivered: bool, routing_key: str, message: Message) -> None:
            self._in_hand.add((channel, tag))

            def settle(ack: bool, requeue: bool) -> None:
                self._settle(channel, tag, ack, requeue)

            self._handling.run(self._handler, Received(message, redelivered, routing_key, settle))

        def on_event(_: int, redelivered: bool, routing_key: str, message: Message) -> None:
            self._handling.run(self._handler, Received(message, redelivered, routing_key, None))

        self._in_hand.clear()
        queue = await self._declare(channel)
        if self._prefetch is None:
            await channel.consume(queue, on_event, prefetch=0, auto_ack=True)
        else:
            await channel.consume(queue, on_delivery, prefetch=self._prefetch)

    def _settle(self, channel: Channel, tag: int, ack: bool, requeue: bool) -> None:
        if ack:
            channel.ack(tag)
        else:
            channel.reject(tag, requeue=requeue)
        self._in_hand.discard((channel, tag))
        self._close_if_done(channel)

    def _close_if_done(self, channel: Channel) -> None:
        if channel is self._leaving and not self._in_hand:
            channel.close()
