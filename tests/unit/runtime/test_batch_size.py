"""Rows per call under an objective: found, kept, and found again when the model gets slower or
faster.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching.batch_size import BatchSizeTuner


def drive(
    tuner: BatchSizeTuner, seconds: Callable[[int], float], calls: int, start: float = 0.0
) -> list[int]:
    """Full calls one after the other; the rows of each."""
    now, rows = start, []
    for _ in range(calls):
        rows.append(tuner.limit)
        now += 0.01
        tuner.measured(tuner.limit, seconds(tuner.limit), now)
    return rows


@pytest.mark.parametrize("best", [1, 3, 10, 40, 100, 256])
def test_calls_come_near_the_largest_that_holds_and_seldom_miss(best: int) -> None:
    tuner = BatchSizeTuner(0.0101, 256)

    rows = drive(tuner, lambda rows: 0.010 * rows / best, 300)[100:]

    assert sum(rows) / len(rows) >= 0.45 * best
    assert sum(count > best * 1.02 for count in rows) <= 0.25 * len(rows)


def test_a_fast_model_is_soon_called_with_all_it_can_take() -> None:
    assert drive(BatchSizeTuner(0.010, 256), lambda rows: 0.001, 10)[-1] == 256


def test_a_slow_first_call_is_forgiven() -> None:
    tuner = BatchSizeTuner(0.010, 256)
    tuner.measured(1, 2.0, 0.0)

    assert drive(tuner, lambda rows: 0.001, 30)[-1] == 256


def test_a_model_that_becomes_slow_is_called_with_less_at_once() -> None:
    tuner = BatchSizeTuner(0.010, 64)
    drive(tuner, lambda rows: 0.001, 50)

    rows = drive(tuner, lambda rows: 0.002 * rows, 100, start=1.0)

    assert rows[0] == 64 and rows[10] <= 10
    assert max(rows[30:]) <= 10


def test_small_calls_do_not_show_that_large_ones_would_hold() -> None:
    tuner = BatchSizeTuner(0.010, 256)
    drive(tuner, lambda rows: 0.001, 3)
    before = tuner.limit

    for number in range(50):
        tuner.measured(1, 0.0001, float(number))

    assert tuner.limit == before


def test_a_call_that_was_on_its_way_when_the_limit_fell_does_not_lower_it_again() -> None:
    tuner = BatchSizeTuner(0.010, 64)
    drive(tuner, lambda rows: 0.001, 20)
    tuner.measured(64, 0.1, 1.0)
    fallen = tuner.limit

    tuner.measured(64, 0.1, 1.0)

    assert fallen < 64 and tuner.limit == fallen


def test_old_measurements_are_not_believed() -> None:
    tuner = BatchSizeTuner(0.010, 64)
    tuner.measured(8, 0.004, 0.0)

    assert tuner.expected(9, 10.0) is None
    assert tuner.expected(8, 100.0) is None
    assert tuner.expected(16, 10.0) is None
    assert tuner.expected(8, 10.0) == 0.004


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1)), max_size=100), st.integers(1, 256))
def test_the_limit_is_always_a_number_of_rows(
    calls: list[tuple[int, float]], max_rows: int
) -> None:
    tuner = BatchSizeTuner(0.010, max_rows)

    for now, (rows, seconds) in enumerate(calls):
        tuner.measured(rows, seconds, float(now))
        assert 1 <= tuner.limit <= max_rows
