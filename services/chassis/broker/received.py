"""Handles messages that arrive, in every adapter: at once, and settled exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.chassis.broker.port import Delivery, Handler, Message

# Called with the delivery's tag, whether it is acknowledged, and whether it is to be requeued.
Settle = Callable[[int, bool, bool], None]

_log = structlog.get_logger("broker")


@dataclass(slots=True)
class Received:
    """A delivery, see `port.Delivery`.

    `settle` is None where the broker awaits no acknowledgement, and once it has been called.
    """

    message: Message
    redelivered: bool
    routing_key: str
    tag: int
    settle: Settle | None

    def ack(self) -> None:
        """Acknowledges the message."""
        settle = self.settle
        self.settle = None
        if settle is not None:
            settle(self.tag, True, False)

    def nack(self, *, requeue: bool) -> None:
        """Rejects the message."""
        settle = self.settle
        self.settle = None
        if settle is not None:
            settle(self.tag, False, requeue)


class Handling:
    """Calls handlers at once; keeps a task for each that has not finished when it returns."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, handler: Handler, delivery: Delivery) -> None:
        """Calls the handler. Never raises: a failure is logged and the delivery rejected."""
        try:
            unfinished = handler(delivery)
        except Exception:
            _failed(delivery)
            return
        if unfinished is not None:
            task = asyncio.get_running_loop().create_task(_finish(unfinished, delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels the unfinished handlers and waits for their end.

        The broker delivers their messages again.
        """
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _finish(unfinished: Awaitable[None], delivery: Delivery) -> None:
    try:
        await unfinished
    except Exception:
        _failed(delivery)


def _failed(delivery: Delivery) -> None:
    _log.exception("broker_handler_failed", routing_key=delivery.routing_key)
    delivery.nack(requeue=False)
