"""Publishes what happened: events in the order of their commits, at least once, whenever the broker
is there.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from services.chassis.broker.port import Message
from services.repository.metrics import Gauges
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import ServiceError

_AT_A_TIME = 100
_RETRY_SECONDS = 1.0


class Outbox(Protocol):
    """Where events wait."""

    happened: asyncio.Event

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]: ...
    async def published(self, place: int) -> None: ...


class Publisher(Protocol):
    """The part of a broker that this needs."""

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None: ...


class Relay:
    """Carries events from the outbox to the broker."""

    def __init__(
        self,
        outbox: Outbox,
        broker: Publisher,
        gauges: Gauges,
        log: structlog.typing.FilteringBoundLogger,
        poll_seconds: float,
    ) -> None:
        self._outbox, self._broker, self._gauges, self._log = outbox, broker, gauges, log
        self._poll_seconds = poll_seconds
        self._failing = False

    async def run(self) -> None:
        """Publishes for ever: at once after a change of this process, and now and then what another
        one left.
        """
        while True:
            self._outbox.happened.clear()
            try:
                while await self.publish_some():
                    pass
                self._failing = False
            except ServiceError as exc:
                if not self._failing:
                    self._log.warning("events_wait", reason=exc.reason)
                self._failing = True
                await asyncio.sleep(min(_RETRY_SECONDS, self._poll_seconds))
                continue
            try:
                await asyncio.wait_for(self._outbox.happened.wait(), self._poll_seconds)
            except TimeoutError:
                continue

    async def publish_some(self) -> int:
        """Publishes the oldest events; returns how many. What was published before a failure is not
        sent twice.
        """
        events = await self._outbox.pending(_AT_A_TIME)
        self._gauges.unpublished.set(len(events))
        done = 0
        try:
            for place, event in events:
                message = Message(event.SerializeToString(), message_id=event.id)
                await self._broker.publish_event(event.kind, message)
                done = place
        finally:
            if done:
                await self._outbox.published(done)
        return len(events)
