"""What every broker promises when the network, or the broker itself, lets its users down."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from services.chassis.broker.port import Broker, Message, QueueSpec
from stellwerk.wire.errors import BrokerDown, Unroutable
from tests.contract.brokers import AtRabbit, AtRouter, Inbox, new_queue
from tests.fakes.eventually import eventually


async def test_a_lost_connection_is_told_and_consumers_come_back(
    remote: AtRabbit | AtRouter,
) -> None:
    broker, other, queue = await remote.open(), await remote.open(), new_queue()
    inbox, news, lost = Inbox(ack=False), Inbox(), list[str]()
    broker.on_lost(lost.append)
    await broker.consume(queue, inbox, prefetch=5)
    await broker.subscribe("news", news)
    await other.publish(queue.name, Message(b"before"))
    (before,) = await inbox.holds(1)

    remote.network_of(broker).cut()

    _, again = await inbox.holds(2)
    assert lost
    assert again.redelivered
    before.ack()  # of a connection that is no more: does nothing
    again.ack()
    await other.publish(queue.name, Message(b"after"))
    assert (await inbox.holds(3))[2].message.body == b"after"
    await eventually(lambda: not broker.problem)
    async with asyncio.timeout(10):
        while not news.deliveries:
            await other.publish_event("news", Message(b"x"))
            await asyncio.sleep(0.05)


async def test_a_publish_on_the_way_when_the_connection_is_lost_fails_in_time(
    remote: AtRabbit | AtRouter,
) -> None:
    broker, queue = await remote.open(), new_queue()
    await broker.declare(queue)
    remote.network_of(broker).freeze()
    publishing = asyncio.create_task(broker.publish(queue.name, Message(b"x"), timeout=5))
    await asyncio.sleep(0.1)

    await remote.lose(broker)

    with pytest.raises(BrokerDown):
        await asyncio.wait_for(publishing, 2)


async def test_nothing_hangs_on_a_broker_that_does_not_answer(remote: AtRabbit | AtRouter) -> None:
    broker, queue = await remote.open(), new_queue()
    await broker.declare(queue)
    remote.network_of(broker).freeze()
    clock = asyncio.get_running_loop().time
    began = clock()

    with pytest.raises(BrokerDown):
        await broker.publish(queue.name, Message(b"x"), timeout=0.3)
    assert clock() - began < 0.6
    with pytest.raises(BrokerDown):
        await broker.inspect(queue.name)
    with pytest.raises(BrokerDown):
        await broker.consume(new_queue(), Inbox(), prefetch=1)
    assert clock() - began < 12

    await eventually(lambda: bool(broker.problem), within=15)
    remote.network_of(broker).thaw()
    await eventually(lambda: not broker.problem, within=10)
    # Its old connection may live on for a moment before the server's end of it is read.
    await works_again(broker, queue)


async def works_again(broker: Broker, queue: QueueSpec) -> None:
    """Returns when a message is published; fails after 10 s."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(BrokerDown):
                return await broker.publish(queue.name, Message(b"x"))
            await asyncio.sleep(0.05)


async def test_after_a_crash_of_the_broker_everything_comes_back(
    remote: AtRabbit | AtRouter,
) -> None:
    broker, queue, inbox, lost = await remote.open(), new_queue(), Inbox(), list[str]()
    spare = replace(new_queue(), durable=False)
    broker.on_lost(lost.append)
    await broker.consume(queue, inbox, prefetch=5)
    await broker.declare(spare)

    await remote.crash()
    await eventually(lambda: bool(lost) and bool(broker.problem))
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(BrokerDown):
        await broker.publish(queue.name, Message(b"x"), timeout=0.5)
    assert clock() - began < 1
    await asyncio.sleep(
        2
    )  # as long as callers are asked to wait for a reconnect; from then on they are told at once
    began = clock()
    with pytest.raises(BrokerDown):
        await broker.publish(queue.name, Message(b"x"), timeout=5)
    assert clock() - began < 0.5

    await remote.come_back()
    await eventually(lambda: not broker.problem, within=10)
    async with asyncio.timeout(10):
        while not inbox.deliveries:
            try:
                await broker.publish(queue.name, Message(b"back"))
            except (Unroutable, BrokerDown):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0)
        await inbox.holds(1)
    await broker.publish(spare.name, Message(b"x"))


async def test_a_broker_may_come_up_later_than_its_users(remote: AtRabbit | AtRouter) -> None:
    broker = await remote.open()
    network = remote.network_of(broker)
    await network.close()
    await eventually(lambda: bool(broker.problem))
    inbox, queue = Inbox(), new_queue()

    consuming = asyncio.create_task(broker.consume(queue, inbox, prefetch=1))
    await asyncio.sleep(0.5)
    await network.start()

    await consuming
    await broker.publish(queue.name, Message(b"x"))
    await inbox.holds(1)
