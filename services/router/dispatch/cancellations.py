"""Tells runtimes which requests nobody waits for any more, so that they stop.

A hint, not a promise: when it is lost, the work ends at its deadline.
"""

from __future__ import annotations

import asyncio

import structlog

from services.chassis.broker.port import Broker, Message
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.topology import WORK_CANCELLED


class Cancellations:
    """Gathers the cancellations of one turn of the loop and publishes them as one event."""

    def __init__(self, broker: Broker, log: structlog.typing.FilteringBoundLogger) -> None:
        self._broker = broker
        self._log = log
        self._ids: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, id: str) -> None:
        """Cancels the item of this id, which was sent."""
        if not self._ids:
            asyncio.get_running_loop().call_soon(self._publish)
        self._ids.append(id)

    def _publish(self) -> None:
        task = asyncio.get_running_loop().create_task(self._send(self._ids))
        self._ids = []
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, ids: list[str]) -> None:
        body = work_pb2.Cancellation(ids=ids).SerializeToString()
        try:
            await self._broker.publish_event(WORK_CANCELLED, Message(body))
        except ServiceError as exc:
            self._log.info("cancellation_not_told", items=len(ids), reason=exc.reason)
