"""RabbitMQ's own traps: each of these has left some client hanging, deaf or wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
import structlog

from services.chassis.broker.amqp.broker import AmqpBroker
from services.chassis.broker.port import Depth, Message
from services.local.backing.rabbitmq import RabbitMQ
from stellwerk.wire.errors import BrokerDown, TooLarge
from tests.contract.brokers import AtRabbit, Inbox, new_queue, until_not
from tests.fakes.eventually import eventually


@pytest.fixture
async def rabbit(rabbitmq_server: RabbitMQ) -> AsyncIterator[AtRabbit]:
    place = AtRabbit(rabbitmq_server)
    yield place
    await place.close()


@asynccontextmanager
async def setting(server: RabbitMQ, **values: int) -> AsyncIterator[None]:
    """Changes settings of the running node; channels opened meanwhile have them."""

    async def evaluate(expression: str) -> str:
        return (await asyncio.to_thread(server.ctl, "eval", expression)).strip()

    before = {name: await evaluate(f"application:get_env(rabbit, {name}).") for name in values}
    try:
        for name, value in values.items():
            await evaluate(f"application:set_env(rabbit, {name}, {value}).")
        yield
    finally:
        for name, found in before.items():
            value = found.removeprefix("{ok,").removesuffix("}")
            undo = (
                f"unset_env(rabbit, {name})"
                if found == "undefined"
                else f"set_env(rabbit, {name}, {value})"
            )
            await evaluate(f"application:{undo}.")


async def test_a_memory_alarm_stops_publishers_in_time_and_never_consumers(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    broker, queue, inbox = await rabbit.open(), new_queue(), Inbox(ack=False)
    await broker.consume(queue, inbox, prefetch=1)
    for number in range(3):
        await broker.publish(queue.name, Message(str(number).encode()))
    (first,) = await inbox.holds(1)
    clock = asyncio.get_running_loop().time
    await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        for _ in range(3):
            began = clock()
            with pytest.raises(BrokerDown):
                await broker.publish(queue.name, Message(b"x"), timeout=0.5)
            assert clock() - began < 0.75
        assert "takes no messages" in broker.problem

        first.ack()
        (await inbox.holds(2))[1].ack()
        await inbox.holds(3)
    finally:
        await asyncio.to_thread(
            rabbitmq_server.ctl, "set_vm_memory_high_watermark", "absolute", "512MB"
        )

    await eventually(lambda: not broker.problem)
    await broker.publish(queue.name, Message(b"y"))
    for settled in range(2, 5):
        (await inbox.holds(settled + 1))[settled].ack()
        if inbox.bodies[settled] == b"y":
            break
    # Only what was sent before the broker told of its alarm may arrive late; the rest was never
    # sent.
    assert inbox.bodies.count(b"x") <= 1


async def test_a_channel_closed_for_a_slow_consumer_is_opened_again(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    async with setting(rabbitmq_server, consumer_timeout=1500, channel_tick_interval=500):
        broker, queue, inbox, lost = await rabbit.open(), new_queue(), Inbox(ack=False), list[str]()
        broker.on_lost(lost.append)
        await broker.consume(queue, inbox, prefetch=1)
        await broker.publish(queue.name, Message(b"slow"))

        _, again = await inbox.holds(2, within=15)

        assert again.redelivered
        assert not lost
        inbox.deliveries[0].ack()  # of the channel that is closed: does nothing
        again.ack()
        await broker.publish(queue.name, Message(b"next"))
        assert (await inbox.holds(3))[2].message.body == b"next"


async def test_a_consumer_whose_queue_was_deleted_makes_it_anew(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    broker, queue, inbox = await rabbit.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=1)

    await asyncio.to_thread(rabbitmq_server.ctl, "delete_queue", queue.name)

    async def without_consumer() -> bool:
        return await broker.inspect(queue.name) != Depth(0, 1)

    await until_not(without_consumer)
    await broker.publish(queue.name, Message(b"x"))
    await inbox.holds(1)


async def test_publishing_goes_on_after_the_exchange_was_deleted(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    broker, queue, inbox = await rabbit.open(), new_queue(), Inbox()
    await broker.declare(queue)
    events = 'rabbit_misc:r(<<"/">>,exchange,<<"stellwerk.events">>)'
    delete = f'rabbit_exchange:delete({events},false,<<"test">>).'
    await asyncio.to_thread(rabbitmq_server.ctl, "eval", delete)

    with pytest.raises(BrokerDown):
        await broker.publish_event("news", Message(b"closes the channel"))

    await broker.publish(queue.name, Message(b"x"))
    await broker.subscribe("news", inbox)
    await broker.publish_event("news", Message(b"again"))
    await inbox.holds(1)


async def test_a_message_over_the_brokers_limit_fails_alone_and_is_remembered(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    async with setting(rabbitmq_server, max_message_size=100_000):
        broker, queue = await rabbit.open(), new_queue()
        await broker.declare(queue)

        for _ in range(2):
            with pytest.raises(TooLarge):
                await broker.publish(queue.name, Message(bytes(100_001)))

        await broker.publish(queue.name, Message(bytes(99_000)))


async def test_a_stopped_broker_is_noticed_and_nothing_outlives_its_timeout(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    broker, queue, inbox = await rabbit.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=100)
    clock, pid = asyncio.get_running_loop().time, rabbitmq_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        began = clock()
        outcomes = await asyncio.gather(
            *(broker.publish(queue.name, Message(b"x"), timeout=1) for _ in range(200)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [BrokerDown] * 200
        assert clock() - began < 1.25
        await eventually(lambda: "does not confirm" in broker.problem, within=8)
        began = clock()
        with pytest.raises(BrokerDown):
            await broker.publish(queue.name, Message(b"x"), timeout=1)
        assert clock() - began < 1.25
    finally:
        os.kill(pid, signal.SIGCONT)

    await eventually(lambda: not broker.problem, within=10)
    await broker.publish(queue.name, Message(b"y"))
    async with asyncio.timeout(10):
        while b"y" not in inbox.bodies:
            await inbox.holds(len(inbox.deliveries) + 1)


@pytest.mark.slow
async def test_silence_is_noticed_by_both_sides_and_the_work_done_elsewhere_within_35_seconds(
    rabbit: AtRabbit,
) -> None:
    frozen, other, queue = await rabbit.open(), await rabbit.open(), new_queue()
    held, inbox, lost = Inbox(ack=False), Inbox(), asyncio.Event()
    frozen.on_lost(lambda _: lost.set())
    await frozen.consume(queue, held, prefetch=1)
    await other.publish(queue.name, Message(b"x"))
    await held.holds(1)

    rabbit.network_of(frozen).freeze()

    await other.consume(queue, inbox, prefetch=1)
    await eventually(lambda: "silent" in frozen.problem, within=13)
    await asyncio.wait_for(lost.wait(), 6)
    await inbox.holds(1, within=16)
    assert inbox.deliveries[0].redelivered


async def test_a_wrong_password_is_said_and_never_shown(rabbitmq_server: RabbitMQ) -> None:
    broker = AmqpBroker(
        f"amqp://stellwerk:hunter2@127.0.0.1:{rabbitmq_server.port}/%2F", name="test"
    )
    with structlog.testing.capture_logs() as logs:
        await broker.start()
        await eventually(lambda: "refused" in broker.problem)
        with pytest.raises(BrokerDown) as refused:
            await broker.publish("any", Message(b"x"), timeout=0.2)
        await broker.close()

    assert "user name or password" in broker.problem
    assert "hunter2" not in f"{broker.problem}{refused.value}{logs}"
