"""Dispatch: work goes out in envelopes, in order, no more than the window holds, and answers come
back.
"""

from __future__ import annotations

from typing import cast

from services.router.queueing.admission import AdmissionLimits, QueuePolicy
from services.router.queueing.outbound_queue import MAX_BYTES
from stellwerk.job.v1 import work_pb2
from tests.fakes.dispatch_rig import rig
from tests.fakes.held_broker import turns

_ITEMS = AdmissionLimits().items_per_envelope


async def test_a_lone_request_is_sent_in_the_next_turn_of_the_loop() -> None:
    held = await rig()
    held.submit("which has the queue declared")
    await turns()

    id = held.submit("predict", tenant="users/ada")
    await turns(1)

    item = held.broker.items[1]
    assert (item.id, item.method, item.priority, item.timeout_ms) == (id, "predict", 1, 10_000)
    assert held.broker.messages[1].reply_to == "stellwerk.reply.r1"
    assert held.broker.messages[1].expiration_ms == 10_000
    assert held.heard[id] == []


async def test_what_is_submitted_in_one_turn_goes_in_one_envelope() -> None:
    held = await rig()

    ids = [held.submit() for _ in range(10)]
    await turns()

    assert [[item.id for item in envelope.items] for envelope in held.broker.envelopes] == [ids]


async def test_what_comes_while_a_send_is_in_flight_goes_together_with_the_next() -> None:
    held = await rig()
    held.broker.confirms = False
    held.submit()
    await turns()
    for _ in range(5):
        held.submit()
        await turns()
    assert len(held.broker.envelopes) == 1

    held.broker.confirm()
    await turns()

    assert [len(envelope.items) for envelope in held.broker.envelopes] == [1, 5]


async def test_a_full_envelope_does_not_wait_for_the_one_before() -> None:
    held = await rig(slots=100)
    held.broker.confirms = False
    for _ in range(2 * _ITEMS + 5):
        held.submit()

    await turns(8)

    assert [len(envelope.items) for envelope in held.broker.envelopes] == [_ITEMS, _ITEMS]


async def test_an_envelope_is_cut_by_size_but_holds_one_item_of_any_size() -> None:
    held = await rig()
    for _ in range(3):
        held.submit(size=700_000)
    held.submit(size=MAX_BYTES + 1)

    await turns(12)

    assert [len(envelope.items) for envelope in held.broker.envelopes] == [1, 1, 1, 1]


async def test_each_caller_gets_its_own_answers_and_nothing_after_the_last() -> None:
    held = await rig()
    one, other = held.submit(), held.submit()
    await turns()

    await held.answer(one, runtime="a", more=True)
    await held.answer(one, runtime="b")
    await held.answer(one, runtime="late")

    assert [cast(work_pb2.WorkReply, outcome).runtime for outcome in held.heard[one]] == ["a", "b"]
    assert held.heard[other] == []
    assert len(held.pending) == 1


async def test_no_more_is_sent_than_the_window_holds() -> None:
    held = await rig(slots=2)
    ids = [held.submit() for _ in range(100)]
    await turns()
    assert len(held.broker.items) == 32

    await held.answer(*ids[:8])

    sent = [item.id for item in held.broker.items]
    assert len(sent) > 32
    assert sent == ids[: len(sent)]


async def test_a_runtime_that_joins_widens_the_window() -> None:
    held = await rig(slots=1)
    ids = [held.submit() for _ in range(200)]
    await turns()
    assert len(held.broker.items) == 16

    held.slots = 3
    await held.answer(ids[0], leads=True, compute_ns=1_000_000, rows=1, batch_rows=16)

    assert len(held.broker.items) - 1 == 2 * 3 * 16


async def test_what_waits_is_sent_by_priority() -> None:
    held = await rig(window_per_slot=1)
    policy = QueuePolicy(levels=3, default_priority=2)
    first = held.submit("first", policy=policy)
    await turns()
    for method, priority in [("low", 3), ("none", 0), ("unknown", 9), ("high", 1)]:
        held.submit(method, priority=priority, policy=policy)

    for _ in range(4):
        await held.answer(first)
        first = held.broker.items[-1].id

    assert [item.method for item in held.broker.items] == [
        "first",
        "high",
        "none",
        "unknown",
        "low",
    ]
    assert [item.priority for item in held.broker.items] == [2, 1, 2, 2, 3]


async def test_one_tenants_backlog_lets_another_through() -> None:
    held = await rig(window_per_slot=1)
    ids = [held.submit("many", tenant="a") for _ in range(1000)]
    await turns()
    held.submit("one", tenant="b")

    await held.answer(ids[0])
    await held.answer(ids[1])

    assert [item.method for item in held.broker.items][1:3].count("one") == 1
