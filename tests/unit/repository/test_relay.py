"""The relay: order kept, nothing lost, nothing sent twice without need, and a broker that is away
disturbs nobody.
"""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Message
from services.repository.events.outbox_publisher import Relay
from services.repository.metrics import Gauges
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import BrokerDown
from tests.fakes.repository_server import until


class Outbox:
    def __init__(self, count: int) -> None:
        self.waiting = [
            (n, event_pb2.Event(id=str(n), kind="repository.version.created"))
            for n in range(1, count + 1)
        ]
        self.happened = asyncio.Event()

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]:
        return self.waiting[:limit]

    async def published(self, place: int) -> None:
        self.waiting = [(n, event) for n, event in self.waiting if n > place]


class Broker:
    """Takes so many events, then is away until told otherwise."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.sent: list[str] = []

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        if len(self.sent) >= self.takes:
            raise BrokerDown("away")
        self.sent.append(message.message_id)


def relay(outbox: Outbox, broker: Broker) -> Relay:
    return Relay(outbox, broker, Gauges(CollectorRegistry()), structlog.get_logger(), 0.01)


async def _run_until_empty(outbox: Outbox, broker: Broker) -> None:
    running = asyncio.create_task(relay(outbox, broker).run())
    await until(lambda: not outbox.waiting)
    running.cancel()


async def test_events_are_published_in_order_and_forgotten() -> None:
    outbox, broker = Outbox(250), Broker(1000)

    await _run_until_empty(outbox, broker)

    assert broker.sent == [str(n) for n in range(1, 251)]


async def test_what_was_published_before_the_broker_left_is_not_sent_again() -> None:
    outbox, broker = Outbox(10), Broker(4)
    running = asyncio.create_task(relay(outbox, broker).run())
    await until(lambda: len(outbox.waiting) == 6)
    broker.takes = 1000
    await until(lambda: not outbox.waiting)
    running.cancel()

    assert broker.sent == [str(n) for n in range(1, 11)]
