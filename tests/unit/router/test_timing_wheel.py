"""Deadlines: never early, never more than a tick late, and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.pending_requests import TICK_SECONDS, TimingWheel


@dataclass
class Item:
    id: str
    deadline: float


def test_what_is_taken_out_is_never_due() -> None:
    deadlines: TimingWheel[Item] = TimingWheel()
    item = Item("1", 5.0)
    deadlines.add(item)

    deadlines.discard(item)
    deadlines.discard(item)

    assert deadlines.due(100.0) == []


def test_a_deadline_earlier_than_all_others_is_due_first() -> None:
    deadlines: TimingWheel[Item] = TimingWheel()
    late, soon = Item("late", 500.0), Item("soon", 1.0)
    deadlines.add(late)
    deadlines.add(soon)

    assert deadlines.due(2.0) == [soon]
    assert deadlines.due(500.1) == [late]


_MOMENTS = st.floats(0, 20, allow_nan=False)


@given(
    adds=st.lists(st.tuples(_MOMENTS, _MOMENTS), max_size=40), looks=st.lists(_MOMENTS, max_size=20)
)
def test_nothing_is_early_or_more_than_a_tick_late(
    adds: list[tuple[float, float]], looks: list[float]
) -> None:
    deadlines: TimingWheel[Item] = TimingWheel()
    waiting: dict[str, Item] = {}
    events = [(at, 0, f"{number}", at + patience) for number, (at, patience) in enumerate(adds)]
    events += [(at, 1, "", 0.0) for at in looks]
    for now, look, id, deadline in sorted(events):
        if not look:
            waiting[id] = Item(id, deadline)
            deadlines.add(waiting[id])
            continue
        for item in deadlines.due(now):
            assert waiting.pop(item.id).deadline <= now
        assert all(item.deadline > now - TICK_SECONDS for item in waiting.values())

    assert {item.id for item in deadlines.due(1000.0)} == set(waiting)
