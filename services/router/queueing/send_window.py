"""How much may be with the broker unanswered. What has been sent can no longer be put in order,
expired or taken back, so it is as little as keeps the runtimes busy. Pure."""

from __future__ import annotations

# Before anything is known; a runtime that joins requests shows within a few calls how many it
# likes.
_FIRST_PER_SLOT = 16
# Where the model costs next to nothing, the window holds this much time: it fills a round trip
# through the broker, and an envelope is worth sending.
_ROUND_TRIP_SECONDS = 0.01
# A larger call is better if it saves this share of what a request takes.
_WORTH_SAVING = 0.1
# Weight of the newest call of its size.
_NEWEST = 0.2


class CallSizes:
    """Seconds per call by its size, in classes of powers of two."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[float, float]] = {}

    def observe(self, size: float, seconds: float) -> None:
        """A call joined requests of this cost together and took so long."""
        number = int(size).bit_length()
        known = self._classes.get(number)
        if known is not None:
            size = known[0] + (size - known[0]) * _NEWEST
            seconds = known[1] + (seconds - known[1]) * _NEWEST
        self._classes[number] = (size, seconds)

    def best(self, turn: float) -> float:
        """The smallest size that no larger one beats by much; 0 if no call was seen.

        `turn` is the time of a slot that a unit of cost takes in all; 0 to compare calls with each
        other alone. A call of next to no time need not be larger, however much that would save of
        it.
        """
        least = None
        best = 0.0
        for number in sorted(self._classes, reverse=True):
            size, seconds = self._classes[number]
            each = seconds / size
            if least is None or each - least <= _WORTH_SAVING * max(turn, least):
                best = size
            least = each if least is None else min(least, each)
        return best


def window(sizes: CallSizes, rate: float, slots: int, *, reports: bool, per_slot: int) -> int:
    """The cost that may be unanswered for `slots` slots at `rate` per second (0: not known), at
    most `per_slot` each.

    Every slot has a call running and one waiting. Of what waits, a slot can make a larger call than
    before, to see whether that pays; a single slot needs one more for it. `reports` is whether the
    runtimes tell of their calls; for those that do not the bound alone holds.
    """
    bound = per_slot * slots
    if not reports:
        return bound
    best = sizes.best(slots / rate if rate else 0.0)
    if not best:
        return min(bound, _FIRST_PER_SLOT * slots)
    return max(1, min(bound, int(max(max(2 * slots, 3) * best, rate * _ROUND_TRIP_SECONDS))))
