"""Says when a failed call is retried: at most three attempts, within the caller's time and within
a budget.

Only UNAVAILABLE is retried, and only calls that change nothing. tenacity runs the attempts; a wait
that the platform asks for is honoured.
"""

from __future__ import annotations

import time
from typing import Any

from tenacity import (
    RetryCallState,
    retry_if_exception_type,
    wait_exponential,
    wait_random,
)

from stellwerk.client.errors import Unavailable

# A platform that three attempts within a second do not reach is down rather than busy.
MAX_ATTEMPTS = 3
# Seconds: 0.1 to 0.2 before the second attempt and 0.2 to 0.3 before the third, at random, so that
# clients which failed together do not return together.
_BACKOFF = wait_exponential(multiplier=0.1) + wait_random(0, 0.1)


class RetryBudget:
    """Counts the retries that a client may still make: each call earns a tenth of one.

    Many clients of a platform in trouble so add at most 10 % to its load; ten retries are there
    to start with.
    """

    EARNED_PER_CALL = 0.1
    MOST = 10.0

    def __init__(self) -> None:
        self._left = self.MOST

    def earn(self) -> None:
        """Adds what one call earns, up to ten retries."""
        self._left = min(self._left + self.EARNED_PER_CALL, self.MOST)

    def spend(self) -> bool:
        """Takes one retry if there is one; returns whether there was."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def rules(deadline: float, budget: RetryBudget) -> dict[str, Any]:
    """Returns the arguments of tenacity's Retrying for one call that ends at `deadline`, a time of
    `time.monotonic`.
    """

    def stop(state: RetryCallState) -> bool:
        # The budget comes last: it pays for a retry only if nothing else stands against it.
        return (
            state.attempt_number >= MAX_ATTEMPTS
            or state.upcoming_sleep >= deadline - time.monotonic()
            or not budget.spend()
        )

    return {
        "retry": retry_if_exception_type(Unavailable),
        "wait": _wait,
        "stop": stop,
        "reraise": True,
    }


def _wait(state: RetryCallState) -> float:
    """Returns the seconds before the next attempt: the backoff, or longer if the platform asks."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after / 1000 if isinstance(error, Unavailable) else 0.0
    return max(_BACKOFF(state), asked)
