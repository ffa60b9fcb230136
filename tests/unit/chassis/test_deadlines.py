"""What a hop leaves of a deadline."""

from __future__ import annotations

import pytest

from services.chassis.context import HOP_SECONDS, onward
from stellwerk.wire.errors import DeadlinePassed


def test_the_next_hop_gets_less_than_this_one_has() -> None:
    assert onward(1.0) == pytest.approx(1.0 - HOP_SECONDS)


@pytest.mark.parametrize("seconds", [HOP_SECONDS, 0.0, -1.0])
def test_a_deadline_too_near_for_another_hop_has_passed(seconds: float) -> None:
    with pytest.raises(DeadlinePassed):
        onward(seconds)
