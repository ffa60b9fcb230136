"""When requests are to leave, whatever became of those before them. Pure but for the random numbers
it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Step:
    """A rate, in requests a second, and the seconds for which it holds."""

    rate: float
    seconds: float


def arrivals(steps: Sequence[Step], random: Random) -> Iterator[float]:
    """The times of a Poisson process whose rate follows the steps, in seconds from its start,
    ascending.

    That is how many users who know nothing of each other arrive. The same seed gives every system
    the same arrivals.
    """
    start = 0.0
    for step in steps:
        end = start + step.seconds
        if step.rate > 0:
            now = start + random.expovariate(step.rate)
            while now < end:
                yield now
                now += random.expovariate(step.rate)
        start = end
