"""The share of a deadline that each hop keeps, so that the innermost process reports a timeout."""

from __future__ import annotations

from stellwerk.wire.errors import DeadlinePassed

# Seconds that every process on the way of a call keeps of the time its caller gave it: the gateway,
# the router, and any service that asks another one. The last hop, a runtime, keeps nothing.
# 0.02: through gateway and router a call loses 0.04 s of its time, as with the 0.03 and 0.01 that
# the two kept until 2026-11, and an answer has two ticks of the router's timing wheel to get back.
HOP_SECONDS = 0.02


def onward(seconds: float) -> float:
    """Returns the seconds that the next hop gets of the `seconds` left here.

    Raises DeadlinePassed if none are left.
    """
    left = seconds - HOP_SECONDS
    if left <= 0:
        raise DeadlinePassed("the call did not finish before its deadline")
    return left
