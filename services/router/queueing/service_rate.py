"""What a model's answers say about its speed: how much it answers per second when it has enough to
do, and how soon an answer can come at best. Fitted while it runs; pure, time is an argument in
seconds of any monotonic clock."""

from __future__ import annotations

import math

# Newer than this counts most; but a slow model's last so many answers count, however long they
# took.
_MEMORY_SECONDS = 1.0
_MEMORY_OBSERVATIONS = 8
# So much must have been seen before anybody is refused for it.
_KNOWN_OBSERVATIONS = 4
_KNOWN_SECONDS = 0.1
# After a pause of this length, what was known is nothing worth: the model or the fleet may be
# another.
_FORGET_SECONDS = 30.0
# One stall must not look like a slow model for long: a gap counts for so many usual ones, or this
# long.
_GAP_FACTOR = 8
_GAP_SECONDS = 0.5
_FASTEST_OF_SECONDS = 5.0


class Speed:
    """The speed of one model at this moment.

    Only time in which work was kept waiting counts: a model that is asked ten times a second is not
    a model that can answer ten times a second. Runtimes come and go, so the rate is kept per slot.
    """

    def __init__(self) -> None:
        self._work = self._slot_seconds = self._seconds = self._observations = 0.0
        self._last = -math.inf
        self._fastest = self._fastest_before = math.inf
        self._fastest_since = -math.inf

    def answered(self, now: float, cost: int, slots: int, *, saturated: bool) -> None:
        """Answers worth `cost` came. `saturated` says that more than was under way was wanted ever
        since the last.
        """
        gap = now - self._last
        self._last = now
        if gap > _FORGET_SECONDS:
            self._work = self._slot_seconds = self._seconds = self._observations = 0.0
            return
        if not saturated:
            return
        if self._observations:
            gap = min(gap, max(_GAP_SECONDS, _GAP_FACTOR * self._seconds / self._observations))
        kept = max(math.exp(-gap / _MEMORY_SECONDS), 1 - 1 / _MEMORY_OBSERVATIONS)
        self._work = self._work * kept + cost
        self._slot_seconds = self._slot_seconds * kept + gap * slots
        self._seconds = self._seconds * kept + gap
        self._observations = self._observations * kept + 1

    def took(self, now: float, seconds: float) -> None:
        """An answer came so long after its request was sent."""
        if now - self._fastest_since > _FASTEST_OF_SECONDS:
            self._fastest_before, self._fastest = self._fastest, math.inf
            self._fastest_since = now
        self._fastest = min(self._fastest, seconds)

    def rate(self, slots: int) -> float:
        """Cost answered per second by so many slots that have enough to do; 0 while that is not
        known.
        """
        if self._observations < _KNOWN_OBSERVATIONS or self._seconds < _KNOWN_SECONDS:
            return 0.0
        return self._work / self._slot_seconds * slots

    @property
    def fastest(self) -> float:
        """Seconds of the fastest answer of late; 0 while none is known."""
        fastest = min(self._fastest, self._fastest_before)
        return fastest if fastest < math.inf else 0.0
