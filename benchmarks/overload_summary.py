"""What a run under overload says: goodput, refusals, latencies, memory, and how soon things are
normal again. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.arrivals import Step
from benchmarks.open_loop import OUTCOMES, Sample
from benchmarks.ratios import SAMPLES_FOR_P99, percentile

# A second is normal when nearly everyone is served and nobody waits long, compared with an idle
# system …
GOOD_SHARE = 0.95
MEDIAN_FACTOR = 10
# Load is normal again from the first of this number of normal seconds in a row.
NORMAL_SECONDS = 3
# What ends at its deadline is heard of a moment later.
TELLING_MS = 50


@dataclass(frozen=True, slots=True)
class Summary:
    """A stretch of time. Rates per second, latencies in ms; None where too few requests say
    anything.

    Accepted is whatever was not refused, so one that was let in and then missed its deadline counts
    with its latency.
    """

    offered: float
    goodput: float
    outcomes: Mapping[str, int]
    accepted_p50: float | None
    accepted_p99: float | None
    refused_p99: float | None


def summarise(
    samples: Sequence[Sample], start: float, end: float, needed: int = SAMPLES_FOR_P99
) -> Summary:
    """What became of the requests that were due from `start` until `end`, in seconds."""
    part = [sample for sample in samples if start <= sample.at < end]
    accepted = [sample.latency for sample in part if sample.outcome != "refused"]
    refused = [sample.latency for sample in part if sample.outcome == "refused"]
    counts = Counter(sample.outcome for sample in part)
    return Summary(
        offered=len(part) / (end - start),
        goodput=counts["good"] / (end - start),
        outcomes={outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]},
        accepted_p50=percentile(accepted, 0.5),
        accepted_p99=percentile(accepted, 0.99, needed),
        refused_p99=percentile(refused, 0.99, needed),
    )


def by_step(samples: Sequence[Sample], steps: Sequence[Step]) -> list[Summary]:
    """One summary for each step."""
    summaries, start = [], 0.0
    for step in steps:
        summaries.append(summarise(samples, start, start + step.seconds))
        start += step.seconds
    return summaries


def by_second(samples: Sequence[Sample], seconds: float) -> list[Summary]:
    """One summary for each whole second; its 99th percentile is what its slowest requests had to
    wait.
    """
    return [
        summarise(samples, float(second), second + 1.0, needed=1) for second in range(int(seconds))
    ]


def normal_after(seconds: Sequence[Summary], start: int, idle_p50: float) -> int | None:
    """How many seconds after `start` things are normal; None if they never are."""
    flags = [_normal(second, idle_p50) for second in seconds[start:]]
    return next(
        (
            index
            for index in range(len(flags) - NORMAL_SECONDS + 1)
            if all(flags[index : index + NORMAL_SECONDS])
        ),
        None,
    )


def _normal(second: Summary, idle_p50: float) -> bool:
    slow = second.accepted_p50 is not None and second.accepted_p50 > MEDIAN_FACTOR * idle_p50
    return second.goodput >= GOOD_SHARE * second.offered and not slow


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target of check L02: what was found, and whether it is met; None where that cannot be
    said.
    """

    what: str
    found: float | None
    limit: float
    met: bool | None


def verdicts(
    steps: Sequence[Summary],
    seconds: Sequence[Summary],
    memory: Sequence[tuple[float, float]],
    last: int,
    deadline: float,
) -> list[Verdict]:
    """The targets for the steps 0.5, 1, 2, 4 and 0.5 times the capacity.

    `memory` is the whole system's at some times, in seconds and MB; `last` is when the last of five
    equal steps began.
    """
    idle, crowded = steps[0], steps[3]
    share = crowded.goodput / max(step.goodput for step in steps)
    patience = max(1000 * deadline + TELLING_MS, 3 * (idle.accepted_p99 or 0.0))
    before = [megabytes for at, megabytes in memory if at < last / 4]
    growth = max(megabytes for _, megabytes in memory) / median(before) if before else None
    normal = normal_after(seconds, last, idle.accepted_p50 or 0.0)
    return [
        Verdict("goodput at 4 C ÷ peak goodput", share, 0.8, share >= 0.8),
        _at_most("p99 of refusals at 4 C, ms", crowded.refused_p99, 50),
        _at_most("p99 of accepted at 4 C, ms", crowded.accepted_p99, patience),
        _at_most("most memory ÷ memory at 0.5 C", growth, 1.1),
        Verdict("seconds until normal after 4 C", normal, 10, normal is not None and normal <= 10),
    ]


def _at_most(what: str, found: float | None, limit: float) -> Verdict:
    return Verdict(what, found, limit, None if found is None else found <= limit)
