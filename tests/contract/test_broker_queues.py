"""What every broker promises about its queues' arguments and lives, and about events."""

from __future__ import annotations

import pytest

from services.chassis.broker.port import Depth, Message
from stellwerk.wire.errors import Conflict, Unroutable
from stellwerk.wire.topology import QueueSpec
from tests.contract.brokers import Inbox, Place, new_queue, until_not


async def test_an_exclusive_queue_is_nobody_elses_and_goes_with_its_owner(place: Place) -> None:
    owner, other, inbox = await place.open(), await place.open(), Inbox()
    mine = QueueSpec(new_queue().name, durable=False, exclusive=True)
    await owner.consume(mine, inbox, prefetch=0)

    with pytest.raises(Conflict):
        await other.declare(mine)

    await other.publish(mine.name, Message(b"hello"))
    await inbox.holds(1)
    await place.lose(owner)

    async def still_there() -> bool:
        try:
            await other.publish(mine.name, Message(b"still there?"))
        except Unroutable:
            return False
        return True

    await until_not(still_there)


async def test_a_queue_with_other_arguments_is_a_conflict(place: Place) -> None:
    broker, queue = await place.open(), new_queue(max_length=5)
    await broker.declare(queue)
    await broker.declare(queue)
    different = QueueSpec(queue.name, max_length=6, expires_ms=queue.expires_ms)

    with pytest.raises(Conflict):
        await broker.declare(different)
    with pytest.raises(Conflict):
        await broker.consume(different, Inbox(), prefetch=1)

    await broker.publish(queue.name, Message(b"x"))
    assert (await broker.inspect(queue.name)).messages == 1


async def test_an_unused_queue_expires(place: Place) -> None:
    broker, queue = await place.open(), new_queue(expires_ms=300)
    await broker.declare(queue)
    await broker.publish(queue.name, Message(b"x"))

    async def still_there() -> bool:
        return await broker.inspect(queue.name) != Depth(0, 0)

    await until_not(still_there, every=0.6)  # asking counts as use at RabbitMQ
    with pytest.raises(Unroutable):
        await broker.publish(queue.name, Message(b"x"))


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("#", "a a.b a.b.c b.c a.x.y.c"),
        ("a.#", "a a.b a.b.c a.x.y.c"),
        ("a.*", "a.b"),
        ("*.b.*", "a.b.c"),
        ("#.c", "a.b.c b.c a.x.y.c"),
        ("a.#.c", "a.b.c a.x.y.c"),
        ("a.b", "a.b"),
    ],
)
async def test_events_reach_those_whose_pattern_matches(
    place: Place, pattern: str, wanted: str
) -> None:
    broker, inbox = await place.open(), Inbox(ack=False)
    await broker.subscribe(pattern, inbox)
    await broker.subscribe("end", inbox)

    for key in ["a", "a.b", "a.b.c", "b.c", "a.x.y.c", "end"]:
        await broker.publish_event(key, Message(key.encode()))

    expected = wanted.split() + ["end"] * (2 if pattern == "#" else 1)
    await inbox.holds(len(expected))
    assert sorted(delivery.routing_key for delivery in inbox.deliveries) == sorted(expected)


async def test_every_subscriber_gets_an_event_until_it_cancels(place: Place) -> None:
    broker, other, one, two = await place.open(), await place.open(), Inbox(), Inbox()
    await broker.subscribe("news.#", one)
    subscription = await other.subscribe("news.#", two)
    await broker.publish_event("news.today", Message(b"1"))
    await two.holds(1)

    await subscription.cancel()
    await broker.publish_event("news.today", Message(b"2"))

    await one.holds(2)
    assert two.bodies == [b"1"]
