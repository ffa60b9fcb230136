"""Events keep their order, none is lost, and none is sent twice without need, also when the broker
goes away.
"""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Message
from services.repository.events.outbox import OutboxPublisher
from services.repository.metrics import RepositoryMetrics
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import BrokerDown
from tests.fakes.repository_server import until


class FakeOutbox:
    """Holds events numbered from 1 to `count`."""

    def __init__(self, count: int) -> None:
        self.waiting = [
            (n, event_pb2.Event(id=str(n), kind="repository.version.created"))
            for n in range(1, count + 1)
        ]
        self.committed = asyncio.Event()

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]:
        return self.waiting[:limit]

    async def mark_published(self, position: int) -> None:
        self.waiting = [(n, event) for n, event in self.waiting if n > position]


class FakeBroker:
    """Takes `takes` events, then is away."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.sent: list[str] = []

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        if len(self.sent) >= self.takes:
            raise BrokerDown("away")
        self.sent.append(message.message_id)


def publisher(outbox: FakeOutbox, broker: FakeBroker) -> OutboxPublisher:
    metrics = RepositoryMetrics(CollectorRegistry())
    return OutboxPublisher(outbox, broker, metrics, structlog.get_logger(), 0.01)


async def _run_until_empty(outbox: FakeOutbox, broker: FakeBroker) -> None:
    running = asyncio.create_task(publisher(outbox, broker).run())
    await until(lambda: not outbox.waiting)
    running.cancel()


async def test_events_are_published_in_order_and_forgotten() -> None:
    outbox, broker = FakeOutbox(250), FakeBroker(1000)

    await _run_until_empty(outbox, broker)

    assert broker.sent == [str(n) for n in range(1, 251)]


async def test_what_was_published_before_the_broker_left_is_not_sent_again() -> None:
    outbox, broker = FakeOutbox(10), FakeBroker(4)
    running = asyncio.create_task(publisher(outbox, broker).run())
    await until(lambda: len(outbox.waiting) == 6)
    broker.takes = 1000
    await until(lambda: not outbox.waiting)
    running.cancel()

    assert broker.sent == [str(n) for n in range(1, 11)]
