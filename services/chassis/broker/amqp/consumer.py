"""A consumer on RabbitMQ, on a channel of its own: its prefetch and its failures are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.reconnecting import KeptChannel, KeptConnection
from services.chassis.broker.port import Handler
from services.chassis.broker.received import Handling

# Seconds that the broker gets to confirm the end of a consumer before its channel is closed.
_CANCEL_SECONDS = 1.0


class AmqpConsumer:
    """See `port.Consumer`. Begins again on each new channel.

    `declare` declares the queue and returns its name; `prefetch` None consumes without
    acknowledgements.
    """

    def __init__(
        self,
        connection: KeptConnection,
        handling: Handling,
        declare: Callable[[Channel], Awaitable[str]],
        handler: Handler,
        prefetch: int | None,
    ) -> None:
        self._handling = handling
        self._declare = declare
        self._handler = handler
        self._prefetch = prefetch
        self._kept = KeptChannel(connection, self._set_up)
        self._leaving: Channel | None = None

    async def start(self, timeout: float) -> None:
        """Starts deliveries.

        Raises BrokerDown if they do not start within `timeout` seconds, Conflict if the queue
        exists with other arguments.
        """
        self._kept.start()
        await self._kept.ready(timeout)

    async def cancel(self) -> None:
        """Ends deliveries; those under way can still be settled."""
        channel = await self._kept.leave()
        if channel is None:
            return
        self._leaving = channel
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await channel.leave()
        except (ChannelGone, TimeoutError):
            channel.close()

    async def stop(self) -> None:
        """Closes the channel; unsettled messages return to the queue."""
        await self._kept.stop()
        if self._leaving is not None:
            self._leaving.close()

    async def _set_up(self, channel: Channel) -> None:
        queue = await self._declare(channel)
        await channel.consume(
            queue,
            self._handler,
            self._handling,
            prefetch=self._prefetch or 0,
            acks=self._prefetch is not None,
        )
