"""From interleaved pairs of measurements to one ratio and whether it says anything. Pure.

Machines are noisy: two identical servers differ by a factor of 1.9 from one minute to the next, but
by a few per cent within a pair measured back to back. So only the median of the ratios of pairs
counts, and a difference is called one only outside the band of noise and when nearly all pairs
agree on its direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

# Between identical servers the median of seven pairs stayed inside this band.
NOISE = (0.87, 1.15)
AGREEMENT = 6 / 7
# Below this many samples a 99th percentile is a handful of outliers.
SAMPLES_FOR_P99 = 1000

Verdict = Literal["higher", "lower", "no difference"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the ratios of the pairs say."""

    ratio: float
    lowest: float
    highest: float
    pairs: int
    verdict: Verdict


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our value over theirs, pair by pair; ValueError for unequal lengths, none at all, or values
    not above 0.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} of our values and {len(theirs)} of theirs make no pairs")
    if not all(math.isfinite(value) and value > 0 for value in [*ours, *theirs]):
        raise ValueError("a ratio needs finite values above 0")
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Summarises the pairs; raises ValueError as `pair_ratios` does."""
    ratios = pair_ratios(ours, theirs)
    middle = median(ratios)
    verdict: Verdict = "no difference"
    if middle > NOISE[1] and _share(ratio > 1 for ratio in ratios) >= AGREEMENT:
        verdict = "higher"
    elif middle < NOISE[0] and _share(ratio < 1 for ratio in ratios) >= AGREEMENT:
        verdict = "lower"
    return Comparison(middle, min(ratios), max(ratios), len(ratios), verdict)


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)


def percentile(values: Sequence[float], share: float, needed: int = 1) -> float | None:
    """The nearest-rank percentile; None with fewer than `needed` values, which would only look like
    one.
    """
    if not values or len(values) < needed:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def met(ratio: float, target: float, better: Literal["higher", "lower"]) -> bool:
    """Whether a ratio reaches its target."""
    return ratio >= target if better == "higher" else ratio <= target
