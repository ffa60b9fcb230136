"""The broker port in the process that hosts the hub.

Its queues are those that other processes reach over gRPC.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.chassis import background
from services.chassis.broker.port import Consumer, Depth, Handler, Message
from services.chassis.broker.pull.hub import Dispatch, Hub
from services.chassis.broker.pull.results import check
from services.chassis.broker.received import Handling, Received
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.topology import QueueSpec

# Seconds between two looks for messages and queues that have expired.
_EXPIRY_SECONDS = 1.0


class HubBroker:
    """See `port.Broker`. Also tells the hub the time, so that messages and queues expire."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._connection = hub.connect(self)
        self._handlers: dict[int, Handler] = {}
        self._last_number = 0
        self._handling = Handling()
        # Deliveries of this turn of the loop: the hub must not be called before it has finished.
        self._arrived: list[tuple[Handler, Received]] = []
        self._ticking: asyncio.Task[None] | None = None

    @property
    def description(self) -> str:
        return "pull (hosted here)"

    @property
    def problem(self) -> str:
        return ""

    async def start(self) -> None:
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def close(self) -> None:
        if self._ticking is not None:
            await background.end(self._ticking)
        await self._handling.stop()
        self._hub.disconnect(self._connection, time.monotonic())

    async def declare(self, queue: QueueSpec) -> None:
        check(self._hub.declare(self._connection, queue, time.monotonic()), queue.name)

    async def publish(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> None:
        check(self._hub.publish(queue, message, time.monotonic(), mandatory=mandatory), queue)

    def post(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> asyncio.Future[None]:
        posted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            check(self._hub.publish(queue, message, time.monotonic(), mandatory=mandatory), queue)
        except ServiceError as exc:
            posted.set_exception(exc)
        else:
            posted.set_result(None)
        return posted

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        self._hub.publish_event(routing_key, message)

    async def consume(
        self, queue: QueueSpec, handler: Handler, *, prefetch: int, acks: bool = True
    ) -> Consumer:
        await self.declare(queue)
        number, now = self._add(handler), time.monotonic()
        check(
            self._hub.consume(self._connection, number, queue.name, prefetch, now, acks=acks),
            queue.name,
        )
        return _HubConsumer(lambda: self._remove(number))

    async def subscribe(self, pattern: str, handler: Handler) -> Consumer:
        number = self._add(handler)
        self._hub.subscribe(self._connection, number, pattern)
        return _HubConsumer(lambda: self._remove(number))

    async def inspect(self, queue: str) -> Depth:
        return self._hub.inspect(queue, time.monotonic())

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Ignores the callback: there is no connection that could be lost."""

    def deliver(self, dispatch: Dispatch) -> bool:
        """Takes a delivery for one of this process's consumers; see `hub.Sink`."""
        settle = self._settle if dispatch.tag else None
        delivery = Received(
            dispatch.message, dispatch.redelivered, dispatch.routing_key, dispatch.tag, settle
        )
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._arrived.append((self._handlers[dispatch.consumer], delivery))
        return True

    def _hand_over(self) -> None:
        arrived = self._arrived
        self._arrived = []
        for handler, delivery in arrived:
            self._handling.run(handler, delivery)

    def _settle(self, tag: int, ack: bool, requeue: bool) -> None:
        self._hub.settle(self._connection, tag, time.monotonic(), ack=ack or not requeue)

    def _add(self, handler: Handler) -> int:
        self._last_number += 1
        self._handlers[self._last_number] = handler
        return self._last_number

    def _remove(self, number: int) -> None:
        self._hub.cancel(self._connection, number, time.monotonic())
        self._handlers.pop(number, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_SECONDS)
            self._hub.expire(time.monotonic())


class _HubConsumer:
    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove = remove

    async def cancel(self) -> None:
        self._remove()
