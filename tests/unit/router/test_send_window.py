"""How much is with the broker: as little as keeps the runtimes busy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.send_window import CallSizes, window


def seen(seconds: Callable[[int], float], *sizes: int) -> CallSizes:
    """Calls of these sizes were seen, each several times."""
    table = CallSizes()
    for size in sizes:
        for _ in range(5):
            table.observe(size, seconds(size))
    return table


def test_a_model_whose_calls_are_not_joined_gets_one_running_and_one_waiting_for_each_slot() -> (
    None
):
    alone = seen(lambda size: 0.02, 1)

    assert window(alone, 100.0, 2, reports=True, per_slot=128) == 4
    assert window(alone, 400.0, 8, reports=True, per_slot=128) == 16


def test_a_single_slot_can_make_a_larger_call_than_before() -> None:
    assert window(seen(lambda size: 0.1, 1, 2, 4, 8), 80.0, 1, reports=True, per_slot=128) == 3 * 8


def test_calls_are_not_made_larger_for_nothing() -> None:
    linear = seen(lambda size: 0.010 * size, 1, 2, 4, 8, 16)

    assert linear.best(0.010) == 1
    assert window(linear, 100.0, 1, reports=True, per_slot=128) == 3


def test_calls_grow_while_that_saves_time() -> None:
    table = seen(lambda size: 0.100 + 0.001 * size, 1, 2, 4, 8, 16, 32)

    assert table.best(0.0) == 32


def test_what_is_saved_of_next_to_nothing_is_not_worth_a_wait() -> None:
    table = seen(lambda size: 150e-6 + 1e-6 * size, 1, 2, 4, 8, 16, 32, 64, 128)

    assert table.best(0.0) == 128
    assert table.best(1 / 8000) == 16


def test_a_fast_model_gets_a_round_trip_of_work() -> None:
    fast = seen(lambda size: 20e-6, 1)

    assert window(fast, 8000.0, 2, reports=True, per_slot=128) == 80


def test_before_anything_is_known_a_little_is_sent() -> None:
    assert window(CallSizes(), 0.0, 2, reports=True, per_slot=128) == 32
    assert window(CallSizes(), 0.0, 2, reports=True, per_slot=4) == 8


def test_the_bound_alone_holds_for_runtimes_that_say_nothing() -> None:
    assert window(CallSizes(), 100.0, 2, reports=False, per_slot=128) == 256


@given(
    calls=st.lists(st.tuples(st.floats(1, 5000), st.floats(1e-6, 100)), max_size=30),
    rate=st.floats(0, 1e6),
    slots=st.integers(1, 512),
    per_slot=st.integers(1, 1000),
    reports=st.booleans(),
)
def test_the_window_is_never_shut_and_never_beyond_its_bound(
    calls: list[tuple[float, float]], rate: float, slots: int, per_slot: int, reports: bool
) -> None:
    table = CallSizes()
    for size, seconds in calls:
        table.observe(size, seconds)

    assert 1 <= window(table, rate, slots, reports=reports, per_slot=per_slot) <= per_slot * slots


@pytest.mark.parametrize("first", [0.5, 2.0])
def test_a_call_that_was_unlike_the_others_is_outweighed(first: float) -> None:
    table = CallSizes()
    table.observe(1, first)
    for _ in range(40):
        table.observe(1, 1.0)
        table.observe(2, 1.5)

    assert table.best(0.0) == 2
