"""How fast a model is, learned from its answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.send_window import ServiceRate


def busy(
    speed: ServiceRate,
    rate: float,
    seconds: float,
    *,
    start: float = 0.0,
    slots: int = 1,
    cost: int = 1,
) -> float:
    """A model that answers at this rate without a pause; returns when it ends."""
    for number in range(1, int(rate * seconds / cost) + 1):
        speed.answered(start + number * cost / rate, cost, slots, saturated=True)
    return start + seconds


def test_nothing_is_known_before_something_was_seen() -> None:
    speed = ServiceRate()
    assert (speed.rate(4), speed.fastest) == (0.0, 0.0)

    for moment in (1.0, 1.1, 1.2):
        speed.answered(moment, 1, 1, saturated=True)

    assert speed.rate(1) == 0.0


@given(rate=st.floats(0.2, 20_000), cost=st.integers(1, 64))
def test_a_steady_rate_is_found(rate: float, cost: int) -> None:
    speed = ServiceRate()

    busy(speed, rate, max(2.0, 20 * cost / rate), cost=cost)

    if rate / cost >= 0.1:
        assert speed.rate(1) == pytest.approx(rate, rel=0.05)


def test_a_model_that_has_nothing_to_do_is_not_called_slow() -> None:
    speed = ServiceRate()
    now = busy(speed, 1000.0, 2.0)

    for _ in range(50):
        now += 0.1
        speed.answered(now, 1, 1, saturated=False)

    assert speed.rate(1) == pytest.approx(1000.0, rel=0.05)


def test_the_rate_follows_the_slots_that_come_and_go() -> None:
    speed = ServiceRate()

    now = busy(speed, 400.0, 5.0, slots=4)
    assert speed.rate(4) == pytest.approx(400.0, rel=0.05)
    assert speed.rate(2) == pytest.approx(200.0, rel=0.05)
    busy(speed, 100.0, 5.0, start=now, slots=1)

    assert speed.rate(4) == pytest.approx(400.0, rel=0.05)


@pytest.mark.parametrize(
    ("before", "after"), [(1000.0, 100.0), (100.0, 1000.0), (1000.0, 10.0), (2.0, 200.0)]
)
def test_a_change_is_found_within_a_few_seconds(before: float, after: float) -> None:
    speed = ServiceRate()

    now = busy(speed, before, 10.0)
    busy(speed, after, 6.0, start=now)

    assert speed.rate(1) == pytest.approx(after, rel=0.25)


def test_one_stall_does_not_look_like_a_slow_model() -> None:
    speed = ServiceRate()

    now = busy(speed, 100.0, 5.0)
    speed.answered(now + 20.0, 1, 1, saturated=True)

    assert speed.rate(1) > 50.0


def test_what_was_known_before_a_long_pause_is_forgotten() -> None:
    speed = ServiceRate()

    now = busy(speed, 1.0, 20.0)
    speed.answered(now + 31.0, 1, 1, saturated=True)

    assert speed.rate(1) == 0.0


def test_the_fastest_answer_of_late_is_remembered() -> None:
    speed = ServiceRate()
    speed.took(0.0, 0.010)
    speed.took(4.0, 0.020)
    assert speed.fastest == 0.010

    speed.took(6.0, 0.030)
    assert speed.fastest == 0.010
    speed.took(12.0, 0.040)

    assert speed.fastest == 0.030
