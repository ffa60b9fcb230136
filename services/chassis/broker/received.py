"""What every adapter does with a message that arrives: it is handled at once and settled exactly
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.chassis.broker.port import Delivery, Handler, Message

# Called with (ack, requeue) when the delivery is settled.
Settle = Callable[[bool, bool], None]

_log = structlog.get_logger("broker")


@dataclass(slots=True)
class Received:
    """A delivery; `settle` is None where there is nothing to settle, and forgotten once used."""

    message: Message
    redelivered: bool
    routing_key: str
    settle: Settle | None

    def ack(self) -> None:
        self._settle(True, False)

    def nack(self, *, requeue: bool) -> None:
        self._settle(False, requeue)

    def _settle(self, ack: bool, requeue: bool) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(ack, requeue)


class Handling:
    """Calls handlers at once, and waits in a task for those that have not finished when they
    return.

    A handler that raises is logged and its delivery rejected.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, handler: Handler, delivery: Delivery) -> None:
        """Hands the delivery over. Never raises."""
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
        """Cancels what still runs and waits for it; the broker delivers those messages again."""
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
    _log.exception("handler failed", routing_key=delivery.routing_key)
    delivery.nack(requeue=False)
