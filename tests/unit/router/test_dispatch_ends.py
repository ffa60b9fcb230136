"""How requests end that get no answer: expired, cancelled, refused, or failed with the broker."""

from __future__ import annotations

from typing import cast

import pytest

from services.chassis.broker.port import EARLY_SECONDS
from services.router.queueing.admission import QueuePolicy
from stellwerk.wire.errors import (
    BrokerDown,
    DeadlinePassed,
    Overloaded,
    ServiceError,
    Unavailable,
    Unroutable,
)
from tests.fakes.dispatch_rig import KEY, Rig, rig
from tests.fakes.held_broker import turns


async def test_silence_ends_at_the_deadline_and_a_late_answer_frees_the_place() -> None:
    held = await rig(window_per_slot=1)
    silent, waiting = held.submit(seconds=0.2), held.submit(seconds=60.0)
    await turns()

    await held.pass_time(0.19)
    assert held.heard[silent] == []
    await held.pass_time(0.03)
    assert held.errors(silent) == ["DEADLINE_PASSED"]
    assert len(held.broker.items) == 1
    await held.answer(silent)

    assert held.errors(silent) == ["DEADLINE_PASSED"]
    assert [item.id for item in held.broker.items] == [silent, waiting]
    assert held.rejections("deadline_passed") == 1


async def test_a_runtime_that_never_answers_keeps_its_place_for_a_second() -> None:
    held = await rig(window_per_slot=1)
    held.submit(seconds=0.2)
    waiting = held.submit(seconds=60.0)
    await turns()

    await held.pass_time(0.5)
    assert len(held.broker.items) == 1
    await held.pass_time(1.0)

    assert held.broker.items[-1].id == waiting
    assert len(held.pending) == 1


async def test_what_expires_while_it_waits_is_not_sent() -> None:
    held = await rig(window_per_slot=1)
    first, expires = held.submit(seconds=60.0), held.submit(seconds=0.2)
    await turns()

    await held.pass_time(0.25)
    await held.answer(first)

    assert held.errors(expires) == ["DEADLINE_PASSED"]
    assert [item.id for item in held.broker.items] == [first]


async def test_the_timeout_of_an_item_counts_from_its_sending() -> None:
    held = await rig(window_per_slot=1)
    first = held.submit(seconds=60.0)
    held.submit(seconds=10.0)
    await turns()

    held.clock.now += 4.0
    await held.answer(first)

    assert held.broker.items[1].timeout_ms == 6000
    assert held.broker.messages[1].expiration_ms == 6000


async def test_a_deadline_in_the_past_is_refused_at_once() -> None:
    held = await rig()

    with pytest.raises(DeadlinePassed):
        held.submit(seconds=0.0)

    assert held.rejections("deadline_passed") == 1
    assert len(held.pending) == 0


async def test_what_is_cancelled_while_it_waits_is_not_sent() -> None:
    held = await rig(window_per_slot=1)
    first, cancelled = held.submit(), held.submit()
    await turns()

    held.dispatcher.cancel(cancelled)
    held.dispatcher.cancel(cancelled)
    await held.answer(first)

    assert held.heard[cancelled] == []
    assert [item.id for item in held.broker.items] == [first]
    assert held.rejections("cancelled") == 1
    assert len(held.pending) == 0


async def test_what_is_cancelled_after_it_was_sent_keeps_its_place_until_its_answer() -> None:
    held = await rig(window_per_slot=1)
    cancelled, waiting = held.submit(), held.submit()
    await turns()

    held.dispatcher.cancel(cancelled)
    await turns()
    assert len(held.broker.items) == 1
    await held.answer(cancelled)

    assert held.heard[cancelled] == []
    assert held.broker.items[-1].id == waiting


async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    held = await rig(window_per_slot=1)
    policy = QueuePolicy(max_queued=3)
    for _ in range(4):
        held.submit(policy=policy)
    await turns()

    with pytest.raises(Overloaded) as refused:
        held.submit(policy=policy)

    assert refused.value.metadata["reason_detail"] == "queue_full"
    assert refused.value.retry_after > 0
    assert held.rejections("queue_full") == 1
    assert len(held.pending) == 4


async def test_what_can_be_sent_at_once_is_not_waiting() -> None:
    held = await rig()

    for _ in range(10):
        held.submit(policy=QueuePolicy(max_queued=1))

    assert len(held.pending) == 10


async def test_a_tenants_share_counts_over_all_models() -> None:
    held = await rig(window_per_slot=1, max_queued_per_tenant=4)
    for _ in range(5):
        held.submit(tenant="a")
        await turns()

    with pytest.raises(Overloaded) as refused:
        held.submit(tenant="a")
    held.submit(tenant="b")

    assert refused.value.metadata["reason_detail"] == "tenant_share"
    assert held.rejections("tenant_share") == 1


async def test_what_waits_holds_a_bounded_number_of_bytes() -> None:
    held = await rig(window_per_slot=1, max_queued_bytes=10_000)
    for _ in range(11):
        held.submit(size=1000)
        await turns()

    with pytest.raises(Overloaded):
        held.submit(size=1000)


async def test_a_full_queue_of_the_broker_is_said_to_those_it_concerns() -> None:
    held = await rig()
    held.broker.errors = [Overloaded("queue is full")]
    refused = held.submit()
    await turns()
    later = held.submit()
    await turns()

    assert held.errors(refused) == ["OVERLOADED"]
    error = cast(ServiceError, held.heard[refused][0])
    assert error.metadata["reason_detail"] == "broker_full"
    assert error.retry_after > 0
    assert held.rejections("broker_full") == 1
    assert held.broker.items == []

    await held.pass_time(0.2)

    assert [item.id for item in held.broker.items] == [later]


async def test_a_lost_broker_fails_what_was_sent_and_keeps_what_waits() -> None:
    held = await rig(window_per_slot=1)
    sent, waiting = held.submit(), held.submit()
    await turns()

    held.broker.problem = "RabbitMQ does not answer"
    held.broker.lose()
    await held.pass_time(1.0)

    assert held.errors(sent) == ["BROKER_DOWN"]
    assert held.heard[waiting] == []
    assert len(held.broker.items) == 1

    held.broker.problem = ""
    await held.pass_time(0.02)

    assert held.broker.items[-1].id == waiting
    assert held.broker.declared == ["stellwerk.infer." + KEY] * 2


async def test_what_waits_for_the_broker_ends_at_its_deadline() -> None:
    held = await rig()
    held.broker.problem = "RabbitMQ does not answer"
    waiting = held.submit(seconds=2.0)

    await held.pass_time(2.1)

    assert held.errors(waiting) == ["DEADLINE_PASSED"]


async def test_a_broker_that_is_away_for_long_is_said_at_once() -> None:
    held = await rig()
    held.broker.problem = "RabbitMQ does not answer"
    held.submit(seconds=60.0)
    await turns()
    await held.pass_time(3.5)

    with pytest.raises(BrokerDown):
        held.submit()
    held.broker.problem = ""
    held.submit()
    await turns()

    assert len(held.broker.items) == 2
    assert held.rejections("broker_down") == 1


@pytest.mark.parametrize("early", [0.0, 0.001, EARLY_SECONDS - 0.001])
async def test_whose_time_ends_before_the_confirm_is_late_and_the_broker_is_not_blamed(
    early: float,
) -> None:
    held = await rig()
    held.broker.confirms = False
    late = held.submit(seconds=0.15)
    longer = held.submit(seconds=5.0)
    await turns()

    held.clock.now += 0.15 - early
    held.broker.refuse(BrokerDown("it did not confirm in time"))
    await turns()

    assert held.errors(late) == ["DEADLINE_PASSED"]
    assert held.errors(longer) == ["BROKER_DOWN"]
    assert (held.rejections("deadline_passed"), held.rejections("broker_down")) == (1, 1)


async def test_a_queue_that_went_away_is_declared_again() -> None:
    held = await rig()
    first = held.submit()
    await turns()
    await held.answer(first)
    held.broker.errors = [Unroutable("no queue")]

    id = held.submit()
    await turns()

    assert held.heard[id] == []
    assert held.broker.items[-1].id == id
    assert len(held.broker.declared) == 2


async def test_an_unexpected_error_of_a_send_ends_its_items() -> None:
    held = await rig()
    held.broker.errors = [ValueError("broken")]

    id = held.submit()
    await turns()

    assert held.errors(id) == ["BROKER_DOWN"]


async def test_failing_a_key_ends_what_waits_and_what_was_sent() -> None:
    held = await rig(window_per_slot=1)
    ids = [held.submit() for _ in range(3)]
    await turns()
    assert held.pending.count(KEY) == 3

    held.pending.fail_key(KEY, Unavailable("nobody serves it"))
    await turns()

    assert [held.errors(id) for id in ids] == [["UNAVAILABLE"]] * 3
    held.submit()
    await turns()
    assert len(held.broker.items) == 2


async def test_an_unreadable_reply_is_rejected() -> None:
    held = await rig()

    delivery = held.broker.deliver(b"\xff\xff")

    assert delivery.settled == "reject"


async def test_before_it_hears_answers_nothing_is_taken() -> None:
    held = Rig()

    with pytest.raises(Unavailable):
        held.submit()


def gauge(held: Rig, name: str) -> float | None:
    version = "buckets/default/models/iris/versions/1"
    return held.registry.get_sample_value(
        name, {"model_version": version, "requirements": KEY.rpartition("/")[2]}
    )


async def test_two_replies_in_one_delivery_take_a_request_out_of_the_window_once() -> None:
    held = await rig(window_per_slot=1)
    several, next_one = held.submit(), held.submit()
    await turns()

    await held.answer(several, several, more=True)

    assert [item.id for item in held.broker.items] == [several, next_one]
    assert gauge(held, "stellwerk_in_flight") == 1
    assert len(held.heard[several]) == 2


async def test_gauges_show_what_waits_and_what_is_under_way() -> None:
    held = await rig(window_per_slot=1)
    ids = [held.submit() for _ in range(3)]
    await turns()

    assert (gauge(held, "stellwerk_queued"), gauge(held, "stellwerk_in_flight")) == (2, 1)
    assert held.dispatcher.used_keys() == [KEY]
    held.dispatcher.forget_if_idle(KEY)
    assert held.dispatcher.used_keys() == [KEY]
    for _ in ids:
        await held.answer(held.broker.items[-1].id)
    held.dispatcher.forget_if_idle(KEY)
    assert held.dispatcher.used_keys() == []
    assert gauge(held, "stellwerk_queued") is None
