"""How deliveries reach their handlers and are settled, and how messages are sent without waiting,
at every broker.
"""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.broker.port import Delivery, Depth, Message
from stellwerk.wire.errors import Unroutable
from tests.contract.brokers import Inbox, Place, new_queue


class PlainInbox(Inbox):
    """An inbox that is a plain function and no coroutine."""

    def __call__(self, delivery: Delivery) -> None:  # type: ignore[override]
        self.take(delivery)


async def test_a_plain_function_takes_deliveries_in_order(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), PlainInbox()
    await broker.consume(queue, inbox, prefetch=20)
    bodies = [str(number).encode() for number in range(200)]

    await asyncio.gather(*(broker.publish(queue.name, Message(body)) for body in bodies))

    await inbox.holds(200)
    assert inbox.bodies == bodies


async def test_a_plain_function_that_raises_rejects_its_delivery_and_the_rest_goes_on(
    place: Place,
) -> None:
    broker, queue, inbox = await place.open(), new_queue(), PlainInbox(ack=False)

    def handler(delivery: Delivery) -> None:
        inbox(delivery)
        raise ValueError("poison")

    await broker.consume(queue, handler, prefetch=1)
    await broker.publish(queue.name, Message(b"1"))
    await broker.publish(queue.name, Message(b"2"))

    await inbox.holds(2)
    assert inbox.bodies == [b"1", b"2"]


async def test_a_handler_may_send_from_where_it_is_called(place: Place) -> None:
    broker, questions, answers, inbox = await place.open(), new_queue(), new_queue(), PlainInbox()

    def answer(delivery: Delivery) -> None:
        posted = broker.post(answers.name, Message(delivery.message.body * 2))
        posted.add_done_callback(lambda _: delivery.ack())

    await broker.consume(answers, inbox, prefetch=10)
    await broker.consume(questions, answer, prefetch=2)

    await asyncio.gather(*(broker.publish(questions.name, Message(b"%d" % n)) for n in range(50)))

    await inbox.holds(50)
    assert inbox.bodies == [b"%d" % n * 2 for n in range(50)]


async def test_what_was_acknowledged_out_of_order_is_settled_and_the_rest_is_not(
    place: Place,
) -> None:
    doomed, other, queue = await place.open(), await place.open(), new_queue()
    held, inbox = Inbox(ack=False), Inbox()
    await doomed.consume(queue, held, prefetch=10)
    for number in range(6):
        await other.publish(queue.name, Message(str(number).encode()))
    deliveries = list(await held.holds(6))

    for number in (4, 0, 2, 1):
        deliveries[number].ack()
    await other.publish(queue.name, Message(b"6"))
    await held.holds(7)
    await doomed.inspect(queue.name)  # answered after the acknowledgements were read
    await place.lose(doomed)

    await other.consume(queue, inbox, prefetch=10)
    await inbox.holds(3)
    assert inbox.bodies == [b"3", b"5", b"6"]


async def test_without_acks_nothing_is_bounded_and_nothing_comes_back(place: Place) -> None:
    doomed, other, queue = await place.open(), await place.open(), new_queue()
    taken, inbox = PlainInbox(ack=False), Inbox()
    await doomed.consume(queue, taken, prefetch=1, acks=False)

    await asyncio.gather(*(other.publish(queue.name, Message(b"%d" % n)) for n in range(20)))
    await taken.holds(20)
    taken.deliveries[0].nack(requeue=True)  # settled by being sent: does nothing
    await place.lose(doomed)

    await other.consume(queue, inbox, prefetch=10)
    await other.publish(queue.name, Message(b"next"))
    await inbox.holds(1)
    assert inbox.bodies == [b"next"]
    assert (await other.inspect(queue.name)).messages == 0


async def test_a_consumer_without_acks_can_be_cancelled(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    consumer = await broker.consume(queue, inbox, prefetch=0, acks=False)
    await broker.publish(queue.name, Message(b"x"))
    await inbox.holds(1)

    await consumer.cancel()
    await broker.publish(queue.name, Message(b"y"))

    assert await broker.inspect(queue.name) == Depth(1, 0)


async def test_what_is_posted_ends_as_what_is_published(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=10)

    posted = [broker.post(queue.name, Message(b"%d" % n)) for n in range(10)]
    lost = broker.post("test.nowhere", Message(b"x"))

    assert await asyncio.gather(*posted) == [None] * 10
    with pytest.raises(Unroutable):
        await lost
    await inbox.holds(10)
    assert inbox.bodies == [b"%d" % n for n in range(10)]


async def test_a_post_that_nobody_waits_for_any_more_harms_no_other(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=10)

    abandoned = broker.post(queue.name, Message(b"abandoned"))
    abandoned.cancel()
    await broker.publish(queue.name, Message(b"next"))

    async with asyncio.timeout(10):
        while b"next" not in inbox.bodies:
            await inbox.holds(len(inbox.deliveries) + 1)
