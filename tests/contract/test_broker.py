"""What every broker promises (services/chassis/broker/port.py), held against RabbitMQ, the pull
stream and the hub.
"""

from __future__ import annotations

import asyncio

from services.chassis.broker.port import Depth, Message
from stellwerk.wire.errors import Overloaded, Unroutable
from stellwerk.wire.topology import QueueSpec
from tests.contract.brokers import Inbox, Place, new_queue


async def test_what_is_published_arrives_whole_and_once(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=10)
    message = Message(
        b"\x00body\xff",
        {"traceparent": "00-ab", "x-ä": "ü"},
        reply_to="there",
        correlation_id="7",
        message_id="m-1",
    )

    await broker.publish(queue.name, message)

    (delivery,) = await inbox.holds(1)
    assert delivery.message == message
    assert delivery.routing_key == queue.name
    assert not delivery.redelivered
    assert await broker.inspect(queue.name) == Depth(0, 1)


async def test_messages_of_one_publisher_arrive_in_order(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=50)
    bodies = [str(number).encode() for number in range(500)]

    await asyncio.gather(*(broker.publish(queue.name, Message(body)) for body in bodies))

    await inbox.holds(500)
    assert inbox.bodies == bodies


async def test_a_large_body_arrives_whole(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=1)
    body = bytes(range(256)) * 4096 * 8

    await broker.publish(queue.name, Message(body))

    (delivery,) = await inbox.holds(1)
    assert delivery.message.body == body
    assert type(delivery.message.body) is bytes


async def test_a_message_waits_until_somebody_consumes(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.declare(queue)
    await broker.publish(queue.name, Message(b"early"))
    assert await broker.inspect(queue.name) == Depth(1, 0)

    await broker.consume(queue, inbox, prefetch=1)

    await inbox.holds(1)


async def test_a_message_given_back_is_delivered_again_as_redelivered(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox(ack=False)
    await broker.consume(queue, inbox, prefetch=1)
    await broker.publish(queue.name, Message(b"x"))
    (first,) = await inbox.holds(1)

    first.nack(requeue=True)

    _, second = await inbox.holds(2)
    assert second.redelivered
    second.ack()
    second.nack(requeue=True)  # settled already: does nothing
    await broker.publish(queue.name, Message(b"next"))
    assert (await inbox.holds(3))[2].message.body == b"next"


async def test_a_rejected_message_is_gone(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox(ack=False)
    await broker.consume(queue, inbox, prefetch=1)
    await broker.publish(queue.name, Message(b"bad"))
    (first,) = await inbox.holds(1)

    first.nack(requeue=False)

    await broker.publish(queue.name, Message(b"good"))
    assert (await inbox.holds(2))[1].message.body == b"good"
    assert not inbox.deliveries[1].redelivered


async def test_what_a_dead_consumer_held_goes_to_another(place: Place) -> None:
    doomed, other, queue = await place.open(), await place.open(), new_queue()
    held, inbox = Inbox(ack=False), Inbox()
    await doomed.consume(queue, held, prefetch=10)
    for number in range(3):
        await other.publish(queue.name, Message(str(number).encode()))
    await held.holds(3)

    await place.lose(doomed)

    await other.consume(queue, inbox, prefetch=10)
    await inbox.holds(3)
    assert inbox.bodies == [b"0", b"1", b"2"]
    assert all(delivery.redelivered for delivery in inbox.deliveries)


async def test_a_mandatory_message_without_a_queue_comes_back_as_unroutable(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=100)

    names = [queue.name if number % 2 else "test.nowhere" for number in range(40)]
    outcomes = await asyncio.gather(
        *(broker.publish(name, Message(b"x")) for name in names), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [Unroutable, type(None)] * 20
    await inbox.holds(20)


async def test_a_message_that_is_not_mandatory_may_go_nowhere(place: Place) -> None:
    broker = await place.open()

    await broker.publish("test.nowhere", Message(b"x"), mandatory=False)

    assert await broker.inspect("test.nowhere") == Depth(0, 0)


async def test_a_full_queue_refuses_and_keeps_what_it_has(place: Place) -> None:
    broker, queue = await place.open(), new_queue(max_length=10)
    await broker.declare(queue)

    outcomes = await asyncio.gather(
        *(broker.publish(queue.name, Message(str(number).encode())) for number in range(40)),
        return_exceptions=True,
    )

    # RabbitMQ's bound is soft: one message per publisher in flight may slip in.
    accepted = outcomes.count(None)
    assert 10 <= accepted <= 11
    assert [type(outcome) for outcome in outcomes if outcome] == [Overloaded] * (40 - accepted)
    inbox = Inbox()
    await broker.consume(queue, inbox, prefetch=100)
    await inbox.holds(accepted)
    await broker.publish(queue.name, Message(b"room again"))
    await inbox.holds(accepted + 1)


async def test_an_expired_message_is_never_delivered(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox()
    await broker.declare(queue)
    await broker.publish(queue.name, Message(b"stale", expiration_ms=50))
    await broker.publish(queue.name, Message(b"fresh", expiration_ms=60_000))
    await asyncio.sleep(0.2)

    await broker.consume(queue, inbox, prefetch=10)

    await inbox.holds(1)
    await broker.publish(queue.name, Message(b"last"))
    await inbox.holds(2)
    assert inbox.bodies == [b"fresh", b"last"]


async def test_a_consumer_never_holds_more_than_its_prefetch(place: Place) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox(ack=False)
    await broker.consume(queue, inbox, prefetch=3)

    await asyncio.gather(*(broker.publish(queue.name, Message(b"x")) for _ in range(10)))
    await inbox.holds(3)

    for settled in range(10):
        await asyncio.sleep(0.02)
        assert len(inbox.deliveries) == min(settled + 3, 10)
        inbox.deliveries[settled].ack()


async def test_work_is_shared_among_consumers(place: Place) -> None:
    broker, other, queue = await place.open(), await place.open(), new_queue()
    one, two = Inbox(ack=False), Inbox(ack=False)
    await broker.consume(queue, one, prefetch=5)
    await other.consume(queue, two, prefetch=5)

    await asyncio.gather(*(broker.publish(queue.name, Message(b"x")) for _ in range(10)))

    await one.holds(5)
    await two.holds(5)


async def test_a_handler_that_raises_rejects_its_delivery_and_the_rest_goes_on(
    place: Place,
) -> None:
    broker, queue, inbox = await place.open(), new_queue(), Inbox(ack=False)

    async def handler(delivery: object) -> None:
        await inbox(delivery)  # type: ignore[arg-type]
        raise ValueError("poison")

    await broker.consume(queue, handler, prefetch=1)
    await broker.publish(queue.name, Message(b"1"))
    await broker.publish(queue.name, Message(b"2"))

    await inbox.holds(2)
    assert inbox.bodies == [b"1", b"2"]


async def test_a_cancelled_consumer_gets_no_more_and_can_settle_what_it_holds(place: Place) -> None:
    broker, queue, held = await place.open(), new_queue(), Inbox(ack=False)
    consumer = await broker.consume(queue, held, prefetch=1)
    await broker.publish(queue.name, Message(b"first"))
    (first,) = await held.holds(1)

    await consumer.cancel()
    await broker.publish(queue.name, Message(b"second"))
    first.ack()

    inbox = Inbox()
    await broker.consume(queue, inbox, prefetch=10)
    await inbox.holds(1)
    assert inbox.bodies == [b"second"]
    assert len(held.deliveries) == 1


async def test_an_answer_finds_its_way_by_the_reply_queue(place: Place) -> None:
    asking, answering, queue, inbox = await place.open(), await place.open(), new_queue(), Inbox()
    replies = QueueSpec(f"{queue.name}.reply", durable=False, exclusive=True)

    async def answer(delivery: object) -> None:
        question = delivery.message  # type: ignore[attr-defined]
        await answering.publish(
            question.reply_to, Message(question.body * 2, correlation_id=question.correlation_id)
        )
        delivery.ack()  # type: ignore[attr-defined]

    await answering.consume(queue, answer, prefetch=10)
    await asking.consume(replies, inbox, prefetch=0)

    await asyncio.gather(
        *(
            asking.publish(
                queue.name, Message(b"%d" % n, reply_to=replies.name, correlation_id=str(n))
            )
            for n in range(100)
        )
    )

    await inbox.holds(100)
    assert {d.message.correlation_id: d.message.body for d in inbox.deliveries} == {
        str(n): b"%d" % n * 2 for n in range(100)
    }


async def test_close_leaves_nothing_running_and_gives_back_what_was_held(place: Place) -> None:
    broker, other, queue = await place.open(), await place.open(), new_queue()
    started, inbox = asyncio.Event(), Inbox()

    async def stuck(_: object) -> None:
        started.set()
        await asyncio.Event().wait()

    await broker.consume(queue, stuck, prefetch=1)
    await other.publish(queue.name, Message(b"x"))
    await started.wait()
    before = asyncio.all_tasks()

    async with asyncio.timeout(5):
        await broker.close()

    await other.consume(queue, inbox, prefetch=1)
    await inbox.holds(1)
    assert inbox.deliveries[0].redelivered
    assert len(asyncio.all_tasks()) <= len(before)
