"""Tells runtimes what nobody waits for any more, so that they stop. What comes in one turn of the
loop goes together.

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
    """One router's."""

    def __init__(self, broker: Broker, log: structlog.typing.FilteringBoundLogger) -> None:
        self._broker, self._log = broker, log
        self._ids: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, id: str) -> None:
        """An item that was sent."""
        if not self._ids:
            asyncio.get_running_loop().call_soon(self._begin)
        self._ids.append(id)

    def _begin(self) -> None:
        ids, self._ids = self._ids, []
        task = asyncio.get_running_loop().create_task(self._send(ids))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, ids: list[str]) -> None:
        body = work_pb2.Cancellation(ids=ids).SerializeToString()
        try:
            await self._broker.publish_event(WORK_CANCELLED, Message(body))
        except ServiceError as exc:
            self._log.info("cancellation_not_told", items=len(ids), reason=exc.reason)
