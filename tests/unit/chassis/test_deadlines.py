"""What a hop leaves of a deadline."""

from __future__ import annotations

import time

import pytest

from services.chassis.context import HOP_SECONDS, CallContext
from stellwerk.wire.errors import DeadlinePassed


def call(seconds: float) -> CallContext:
    return CallContext("/a.B/C", "r1", deadline=time.monotonic() + seconds)


def test_the_next_hop_gets_less_than_this_one_has() -> None:
    assert call(10.0).onward() == pytest.approx(10.0 - HOP_SECONDS, abs=1.0)
    assert call(10.0).onward() <= 10.0 - HOP_SECONDS


@pytest.mark.parametrize("seconds", [HOP_SECONDS, 0.0, -1.0])
def test_a_deadline_too_near_for_another_hop_has_passed(seconds: float) -> None:
    with pytest.raises(DeadlinePassed):
        call(seconds).onward()
