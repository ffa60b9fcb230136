"""Groups that are not as they should be, and what happens to a member alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from services.router.calls.call_group import CallGroup
from services.router.calls.gateway_stream import _Call
from services.router.queueing.members import GroupWork, PendingGroup
from services.router.queueing.pending_requests import PendingRequest
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.columns import MAX_MEMBERS
from stellwerk.wire.errors import BrokerDown
from tests.fakes.call_world import Batch, World

GOOD = Batch((1, 2, 3), (5000, 5000, 5000))


def in_a_world(
    act: Callable[[World], Coroutine[Any, Any, None]], *, grouped: bool = True, **limits: int
) -> World:
    """The world in which this has happened."""

    async def run() -> World:
        world = World(grouped=grouped, slots=1, **{"window_per_slot": 8, **limits})
        await world.start()
        await act(world)
        return world

    return asyncio.run(run())


def changed(**fields: Any) -> messages.CallGroup:
    group = GOOD.group()
    for name, value in fields.items():
        column = getattr(group, name)
        del column[:]
        column.extend(value)
    return group


def _streaming() -> messages.CallGroup:
    group = GOOD.group()
    group.work.stream = True
    return group


def _long() -> messages.CallGroup:
    group = GOOD.group()
    group.work.inputs[0].data += b"1234"
    return group


def _texts() -> messages.CallGroup:
    group = GOOD.group()
    group.work.inputs[0].datatype = "BYTES"
    return group


def _without_inputs() -> messages.CallGroup:
    group = GOOD.group()
    del group.work.inputs[:]
    return group


@pytest.mark.parametrize(
    "group",
    [
        changed(timeouts_ms=[5000]),
        changed(timeouts_ms=[]),
        changed(request_ids=["r1", "r2"]),
        changed(traceparents=["00-1-2-00"]),
        changed(peers=["a", "b"], timeouts_ms=[1]),
        _streaming(),
        _long(),
        _texts(),
        _without_inputs(),
    ],
)
def test_each_member_of_a_malformed_group_gets_an_error(group: messages.CallGroup) -> None:
    world = in_a_world(lambda world: world._take(messages.ExchangeRequest(groups=[group])))

    assert sorted(world.answers) == [1, 2, 3]
    assert {told[0][2] for told in world.answers.values()} == {"INVALID_INPUT"}
    assert not world.stream.calls
    assert not world.broker.envelopes
    assert world.log.errors == []


def test_a_group_with_more_members_than_there_may_be_is_refused() -> None:
    numbers = tuple(range(1, MAX_MEMBERS + 2))

    world = in_a_world(lambda world: world.call([Batch(numbers, (5000,) * len(numbers))]))

    assert len(world.answers) == MAX_MEMBERS + 1
    assert {told[0][2] for told in world.answers.values()} == {"INVALID_INPUT"}


def test_a_group_of_nobody_gets_no_answer() -> None:
    group = changed(ids=[], timeouts_ms=[], request_ids=[])

    world = in_a_world(lambda world: world._take(messages.ExchangeRequest(groups=[group])))

    assert not world.answers
    assert world.log.errors == []


def test_outputs_that_cannot_be_shared_out_fail_the_members_they_are_for() -> None:
    async def act(world: World) -> None:
        await world.call([GOOD])
        reply = work_pb2.WorkReply(runtime="r")
        reply.outputs.add(name="y", datatype="INT32", shape=[1, 1], data=b"12345")
        id = world.sent[1].id
        await world.cancel([2])
        await world.reply([work_pb2.WorkReplyGroup(id=id, reply=reply)])

    world = in_a_world(act)

    assert {number: told[0][2] for number, told in world.answers.items()} == {
        1: "INTERNAL",
        3: "INTERNAL",
    }
    assert world.dispatcher._queues["default/iris/1/any"].idle


def test_positions_that_a_part_does_not_have_are_ignored() -> None:
    async def act(world: World) -> None:
        await world.call([GOOD])
        reply = work_pb2.WorkReply(runtime="r")
        reply.outputs.add(name="y", datatype="INT32", shape=[1, 1], data=b"aaaabbbbcccc")
        told = work_pb2.WorkReplyGroup(id=world.sent[1].id, members=[1, 7, 1], reply=reply)
        await world.reply([told, work_pb2.WorkReplyGroup(id="r1.99", reply=reply)])

    world = in_a_world(act)

    assert {number: told[0][1] for number, told in world.answers.items()} == {2: [("y", b"aaaa")]}
    assert sorted(world.stream.calls) == [1, 3]


def test_a_large_group_that_cannot_wait_as_a_whole_goes_as_far_as_there_is_room() -> None:
    numbers = tuple(range(1, 31))
    batch = Batch(numbers, (5000,) * len(numbers), model="plain")

    world = in_a_world(lambda world: world.call([batch]))

    assert world.envelopes == [list(range(1, 9))]
    refused = {number for number, told in world.answers.items() if told[0][2] == "OVERLOADED"}
    assert refused == set(range(15, 31))


def test_waiting_members_count_their_bytes() -> None:
    async def act(world: World) -> None:
        await world.call([Batch(tuple(range(1, 21)), (5000,) * 20)])
        await world.call([Batch((21, 22), (5000,) * 2)])

    world = in_a_world(act, max_queued_bytes=10 * 208)

    assert sorted(world.answers) == list(range(11, 21))
    assert {told[0][2] for told in world.answers.values()} == {"OVERLOADED"}


def test_a_group_has_one_line_with_the_ids_of_all_its_members() -> None:
    world = in_a_world(lambda world: world.call([GOOD]))

    lines = [fields for event, fields in world.log.lines if event == "calls"]
    assert lines == [{"count": 3, "request_ids": ["r1", "r2", "r3"]}]


def test_members_whose_time_ends_before_their_model_is_ready_leave_the_others() -> None:
    async def act(world: World) -> None:
        await world.call([Batch((1, 2, 3, 4), (0, 60_000, 0, 60_000), model="cold")])
        await world.cancel([4])
        assert sorted(world.answers) == [1, 3]
        world.ready.set()
        await world.settle()

    world = in_a_world(act)

    assert world.envelopes == [[2]]
    assert {told[0][2] for told in world.answers.values()} == {"DEADLINE_PASSED"}
    assert sorted(world.stream.calls) == [2]


def test_a_group_that_nobody_waits_for_any_more_loads_no_model() -> None:
    async def act(world: World) -> None:
        await world.call([Batch((1, 2), (60_000, 60_000), model="cold")])
        world.stream.close()
        world.ready.set()
        await world.settle()

    world = in_a_world(act)

    assert not world.envelopes
    assert not world.answers


@pytest.mark.parametrize("grouped", [True, False], ids=["groups", "calls"])
def test_what_has_ended_is_freed_at_once(grouped: bool) -> None:
    """However it ended: a call holds its tensors, and the collector of cycles comes late."""

    async def act(world: World) -> None:
        await world.call([GOOD, Batch((4,), (0,)), Batch((5,), (9,), method="divide")])
        await world.call([Batch((6, 7), (5000, 5000), credential=9)])
        await world.call([Batch((8,), (5000,), model="cold"), Batch((9,), (10,), model="missing")])
        numbers = tuple(range(10, 50))
        await world.call([Batch(numbers, (5000,) * len(numbers), model="plain")])
        await world.cancel([1, 8, 10])
        reply = work_pb2.WorkReply(error=work_pb2.WorkError(code=13, reason="INTERNAL"))
        ids = {sent.id for sent in world.sent.values()}
        await world.reply([work_pb2.WorkReplyGroup(id=id, reply=reply) for id in ids])
        await world.pass_time(7.0)
        await world.pass_time(7.0)
        await world.pass_time(7.0)
        assert not world.stream.calls

    kinds = (CallGroup, GroupWork, PendingGroup, _Call, PendingRequest)
    gc.collect()
    others = {id(one) for one in gc.get_objects() if type(one) in kinds}
    gc.disable()
    try:
        in_a_world(act, grouped=grouped)
        left = [one for one in gc.get_objects() if type(one) in kinds and id(one) not in others]
        assert [getattr(one, "id", one) for one in left] == []
    finally:
        gc.enable()


def test_of_a_part_that_was_not_confirmed_those_whose_time_is_over_are_late() -> None:
    async def act(world: World) -> None:
        world.broker.confirms = False
        await world.call([Batch((1, 2), (1000, 60_000))])
        world.clock.now += 0.979
        for posted in world.broker._unconfirmed:
            posted.set_exception(BrokerDown("it does not confirm"))
        world.broker._unconfirmed.clear()
        await world.settle()

    world = in_a_world(act)

    assert {number: told[0][2] for number, told in world.answers.items()} == {
        1: "DEADLINE_PASSED",
        2: "BROKER_DOWN",
    }


def test_a_fault_of_ours_is_told_to_the_members_that_wait_each_with_its_own_id() -> None:
    told: list[tuple[list[int], str]] = []
    lines: list[dict[str, Any]] = []

    class Log:
        def error(self, event: str, **fields: Any) -> None:
            lines.append(fields)

    message = changed(request_ids=["a", "b", "c"])
    group = CallGroup(
        message, lambda _, at, outcome: told.append((list(at), str(outcome))), lambda: 0.0, Log()
    )
    group.waiting.remove(1)

    group.fail(KeyError("unforeseen"))

    assert [at for at, _ in told] == [[0], [2]]
    assert ["a" in told[0][1].split(), "c" in told[1][1].split()] == [True, True], told
    assert [line["request_ids"] for line in lines] == [["a", "c"]]
