"""Commits changes together with their events, and publishes the events in the order of the commits:
the transactional outbox. Each event is published at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
from pymongo import ASCENDING, ReturnDocument

from services.chassis.broker.port import Message
from services.chassis.mongo import errors, in_transaction
from services.repository.metrics import RepositoryMetrics
from services.repository.mongo import Database, Session, now
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import ServiceError

T = TypeVar("T")

# Seconds that a change waits for its event to be published. The broker takes milliseconds; a change
# must not fail or hang because the broker is away (docs/decisions/0016-news-before-answers.md).
ANNOUNCE_SECONDS = 0.25
# Events read from the outbox at a time; bounds the memory used after a long outage of the broker.
_BATCH_EVENTS = 100
# Seconds between attempts while the broker or the database is away.
_RETRY_SECONDS = 1.0


class Outbox:
    """Runs transactions that record events, and hands out the events not yet published.

    Events are numbered by one counter that every transaction increments, so their order is the
    order of the commits.
    """

    def __init__(self, database: Database) -> None:
        self._client = database.client
        self._events = database.outbox
        self._counters = database.counters
        # All transactions write the counter of events: within a process they take turns, because
        # colliding ones would be retried by the driver.
        self._turn = asyncio.Lock()
        # Set when there may be events to publish.
        self.committed = asyncio.Event()
        self._last_added = 0
        self._last_published = 0
        self._published = asyncio.Condition()

    async def commit(self, change: Callable[[Session], Awaitable[T]]) -> T:
        """Runs `change` in one transaction and returns its result; MongoDB may run `change` again
        after a collision with another process.

        Waits up to ANNOUNCE_SECONDS for the change's event to be published, so that a caller who
        predicts next gets the version just stored.
        """
        async with self._turn:
            result = await in_transaction(self._client, change)
            position = self._last_added
        self.committed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANNOUNCE_SECONDS), self._published:
                await self._published.wait_for(lambda: self._last_published >= position)
        return result

    async def add(self, session: Session, kind: str, resource: str, **attributes: object) -> None:
        """Adds an event about `resource` to the transaction of `session`."""
        counter = await self._counters.find_one_and_update(
            {"_id": "outbox"},
            {"$inc": {"last": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        assert counter is not None
        event = event_pb2.Event(id=uuid.uuid4().hex, kind=kind, resource=resource)
        event.time.FromDatetime(now())
        event.attributes.update({key: str(value) for key, value in attributes.items()})
        self._last_added = counter["last"]
        await self._events.insert_one(
            {"_id": counter["last"], "event": event.SerializeToString()}, session=session
        )

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]:
        """Returns the oldest `limit` unpublished events, each with its position in the order."""
        async with errors():
            found = await self._events.find({}, sort=[("_id", ASCENDING)], limit=limit).to_list()
        return [
            (document["_id"], event_pb2.Event.FromString(document["event"])) for document in found
        ]

    async def mark_published(self, position: int) -> None:
        """Removes all events up to `position` and wakes the changes that wait for them."""
        async with errors():
            await self._events.delete_many({"_id": {"$lte": position}})
        async with self._published:
            self._last_published = position
            self._published.notify_all()


class UnpublishedEvents(Protocol):
    """The part of the outbox that the publisher reads; see Outbox."""

    committed: asyncio.Event

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]: ...
    async def mark_published(self, position: int) -> None: ...


class EventBroker(Protocol):
    """The part of a broker that the publisher needs."""

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        """Publishes one event. Raises a ServiceError if the broker does not confirm it."""
        ...


class OutboxPublisher:
    """Publishes the outbox's events to the broker."""

    def __init__(
        self,
        outbox: UnpublishedEvents,
        broker: EventBroker,
        metrics: RepositoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
        poll_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._metrics = metrics
        self._log = log
        self._poll_seconds = poll_seconds
        self._failing = False

    async def run(self) -> None:
        """Publishes until cancelled: at once after a commit of this process, and every
        `poll_seconds` the events that another process left.
        """
        while True:
            # Cleared before reading, so that a commit during the reading is not missed.
            self._outbox.committed.clear()
            try:
                while await self.publish_batch():
                    pass
                self._failing = False
            except ServiceError as exc:
                # One log line an outage, not one an attempt.
                if not self._failing:
                    self._log.warning("events_wait", reason=exc.reason)
                self._failing = True
                await asyncio.sleep(min(_RETRY_SECONDS, self._poll_seconds))
                continue
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._outbox.committed.wait()
            except TimeoutError:
                continue

    async def publish_batch(self) -> int:
        """Publishes the oldest events and returns their number, 0 if none waits.

        Raises a ServiceError when the broker or the database is away; events published before the
        failure are removed and not sent again.
        """
        events = await self._outbox.pending(_BATCH_EVENTS)
        self._metrics.unpublished.set(len(events))
        last_published = 0
        try:
            for position, event in events:
                message = Message(event.SerializeToString(), message_id=event.id)
                await self._broker.publish_event(event.kind, message)
                last_published = position
        finally:
            if last_published:
                await self._outbox.mark_published(last_published)
        return len(events)
