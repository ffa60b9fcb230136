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
        self._next = work_pb2.Cancellation()
        # Its groups by their ids.
        self._groups: dict[str, work_pb2.GroupMembers] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, id: str) -> None:
        """Cancels the item of this id, which was sent."""
        self._begin()
        self._next.ids.append(id)

    def add_member(self, group_id: str, position: int) -> None:
        """Cancels the member at this position of the group of this id, which was sent."""
        self._begin()
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = self._next.groups.add(id=group_id)
        group.members.append(position)

    def _begin(self) -> None:
        if not (self._next.ids or self._next.groups):
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        task = asyncio.get_running_loop().create_task(self._send(self._next))
        self._next = work_pb2.Cancellation()
        self._groups = {}
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, cancellation: work_pb2.Cancellation) -> None:
        try:
            message = Message(cancellation.SerializeToString())
            await self._broker.publish_event(WORK_CANCELLED, message)
        except ServiceError as exc:
            items = len(cancellation.ids) + sum(len(one.members) for one in cancellation.groups)
            self._log.info("cancellation_not_told", items=items, reason=exc.reason)
