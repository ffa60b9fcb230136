"""How long to wait before the next attempt: doubling, jittered, bounded."""

from __future__ import annotations

import random

_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 3.0


class Backoff:
    """Delays for successive failures; `reset` after a success."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait now: between half and all of the doubled delay, so that many clients do
        not come at once.
        """
        delay: float = min(_FIRST_SECONDS * 2**self._failures, _LONGEST_SECONDS)
        self._failures = min(self._failures + 1, 16)
        return delay * random.uniform(0.5, 1.0)
