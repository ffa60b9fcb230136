"""Every waiting request ends exactly once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.pending import PendingTable
from services.wire.errors import BrokerDown, DeadlinePassed, NoRuntimeAvailable
from stellwerk.job.v1 import work_pb2


async def test_an_answer_reaches_who_waits_for_it() -> None:
    table = PendingTable()
    first, second = table.add("1", "k", 10.0), table.add("2", "k", 10.0)

    assert table.settle(work_pb2.WorkReply(id="2", runtime="r"))

    assert (await second).runtime == "r"
    assert not first.done()
    assert table.count("k") == 1


async def test_a_late_reply_is_ignored() -> None:
    table = PendingTable()
    table.add("1", "k", 10.0)
    table.forget("1")

    assert not table.settle(work_pb2.WorkReply(id="1"))


async def test_deadlines_end_entries_in_their_order() -> None:
    table = PendingTable()
    late, soon = table.add("late", "k", 2.0), table.add("soon", "k", 1.0)

    assert table.expire(1.0) == 1

    with pytest.raises(DeadlinePassed):
        await soon
    assert not late.done()


async def test_failing_a_key_leaves_the_others() -> None:
    table = PendingTable()
    ours, theirs = table.add("1", "k", 9.0), table.add("2", "other", 9.0)

    table.fail_key("k", NoRuntimeAvailable("none"))

    with pytest.raises(NoRuntimeAvailable):
        await ours
    assert not theirs.done()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "settle", "fail", "forget", "expire", "fail_all"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_counts_always_match_the_entries(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        table, futures, now = PendingTable(), {}, 0.0
        for number, (step, id) in enumerate(steps):
            name = f"{id}"
            if step == "add" and name not in futures:
                futures[name] = table.add(name, f"k{id % 3}", float(number + id))
            elif step == "settle" and table.settle(work_pb2.WorkReply(id=name)):
                assert futures.pop(name).done()
            elif step == "fail":
                table.fail(name, BrokerDown("x"))
            elif step == "forget":
                table.forget(name)
                futures.pop(name, None)
            elif step == "expire":
                now = float(number)
                table.expire(now)
            elif step == "fail_all":
                table.fail_all(BrokerDown("x"))
            for gone in [key for key, future in futures.items() if future.done()]:
                futures.pop(gone).exception()
        assert len(table) == len(futures)
        assert sum(table.count(f"k{n}") for n in range(3)) == len(futures)

    asyncio.run(scenario())
