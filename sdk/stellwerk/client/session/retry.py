"""When a failed call is tried again: at most three attempts, within the caller's time, within a
budget. Pure.

Only UNAVAILABLE of calls that change nothing; a wait that the platform asks for is honoured. The
budget (a tenth of the calls, and a few to start with) keeps many clients from doubling the load on
a platform in trouble.
"""

from __future__ import annotations

from stellwerk.wire.errors import ServiceError, Unavailable

MAX_ATTEMPTS = 3
FIRST_PAUSE = 0.1


class RetryBudget:
    """Retries that a client may still make: each call earns a tenth of one."""

    EARNED_PER_CALL = 0.1
    MOST = 10.0

    def __init__(self) -> None:
        self._left = self.MOST

    def earn(self) -> None:
        self._left = min(self._left + self.EARNED_PER_CALL, self.MOST)

    def spend(self) -> bool:
        """Whether one more retry is allowed; takes it if so."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def pause_before_retry(
    error: ServiceError, attempt: int, remaining: float, jitter: float
) -> float | None:
    """Seconds to wait after this attempt (1, 2, …), or None to give up. `jitter` is a random number
    from 0 to 1.
    """
    if not isinstance(error, Unavailable) or attempt >= MAX_ATTEMPTS:
        return None
    pause = max(FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + jitter), error.retry_after / 1000)
    return pause if pause < remaining else None
