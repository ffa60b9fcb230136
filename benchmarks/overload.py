"""Check L02: what becomes of a system that is asked for four times what it can do, ours and Triton
in turn.

`python -m benchmarks overload` finds the capacity C of each, then sends 0.5 C, C, 2 C, 4 C and 0.5
C in an open loop; and once more a burst of 4 C that is followed by 0.9 C, to see whether it is
worked off. Clients do not try again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from benchmarks import open_loop, rest_load
from benchmarks.arrivals import Step
from benchmarks.measurement import RestCall, System, WrongAnswer
from benchmarks.memory import MemoryWatch
from benchmarks.overload_summary import (
    Summary,
    by_second,
    by_step,
    normal_after,
    summarise,
    verdicts,
)
from benchmarks.slow_work import OurSleeper, TritonSleeper

Progress = Callable[[str], None]
WORK_SECONDS = 0.01
DEADLINE_SECONDS = 2.0
FACTORS = (0.5, 1.0, 2.0, 4.0, 0.5)
# The burst test: an idle system, the burst, then nearly all it can do.
BURST = ((0.5, 5.0), (4.0, 10.0), (0.9, 40.0))
DRAIN_LIMIT_SECONDS = 30
# More callers are tried until twice in a row that brings less than this.
CALLERS = (1, 2, 4, 8, 16, 32, 64)
GROWTH = 1.03
# What a Triton is told whose operator knows its capacity: a queue worth half a deadline.
TUNED_QUEUE = 180


class Sleeper(System, Protocol):
    """A system with a model that takes as long as it is told."""

    def call(self, seconds: float, deadline: float) -> RestCall: ...


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure, in seconds."""

    step: float = 30.0
    capacity: float = 4.0


FULL, QUICK = Effort(), Effort(step=8.0, capacity=2.0)


def run(effort: Effort, broker: str, progress: Progress) -> list[dict[str, Any]]:
    """What was measured, one entry for each system; only one of them runs at a time."""
    systems: list[Callable[[], Sleeper]] = [
        lambda: OurSleeper(broker),
        TritonSleeper,
        lambda: TritonSleeper(TUNED_QUEUE),
    ]
    found = []
    for start in systems:
        system = start()
        try:
            found.append(measure(system, effort, progress))
        finally:
            system.stop()
    return found


def measure(system: Sleeper, effort: Effort, progress: Progress) -> dict[str, Any]:
    """Capacity, the five steps, the burst. Raises WrongAnswer if the system does not do the work at
    all.
    """
    # The first call loads the model, which is not what is measured.
    rest_load.check(system.name, system.call(WORK_SECONDS, deadline=60))
    call = system.call(WORK_SECONDS, DEADLINE_SECONDS)
    capacity = find_capacity(system.name, call, effort.capacity, progress)
    return {
        "system": system.name,
        "versions": dict(system.versions),
        "capacity": capacity,
        **_steps(
            system, call, [Step(factor * capacity, effort.step) for factor in FACTORS], progress
        ),
        "burst": _burst(
            system, call, [Step(factor * capacity, seconds) for factor, seconds in BURST], progress
        ),
    }


def find_capacity(name: str, call: RestCall, seconds: float, progress: Progress) -> float:
    """The most right answers a second, by closed loops of more and more callers."""
    best, without_growth = 0.0, 0
    for callers in CALLERS:
        load = open_loop.run_closed(call, callers, seconds, DEADLINE_SECONDS)
        goodput = summarise(load.samples, 0, seconds).goodput
        without_growth = without_growth + 1 if goodput < GROWTH * best else 0
        best = max(best, goodput)
        if without_growth == 2:
            break
    if not best:
        raise WrongAnswer(f"{name} answers nobody: {load.problem}")
    progress(f"{name}: capacity {best:.0f}/s, reached with {callers} callers")
    return best


def _steps(
    system: Sleeper, call: RestCall, steps: Sequence[Step], progress: Progress
) -> dict[str, Any]:
    with MemoryWatch(system) as watch:
        load = open_loop.run(call, steps, DEADLINE_SECONDS)
    last = int(sum(step.seconds for step in steps[:-1]))
    seconds = by_second(load.samples, last + steps[-1].seconds)
    memory = watch.since(load.start)
    summaries = by_step(load.samples, steps)
    for factor, summary in zip(FACTORS, summaries, strict=True):
        progress(f"{system.name}: {factor:g} C: {_words(summary)}")
    found = verdicts(summaries, seconds, memory, last, DEADLINE_SECONDS)
    return {
        "steps": [
            {"factor": factor, "duration": step.seconds, **asdict(summary)}
            for factor, step, summary in zip(FACTORS, steps, summaries, strict=True)
        ],
        "verdicts": [asdict(verdict) for verdict in found],
        "seconds": [asdict(second) for second in seconds],
        "memory_mb": memory,
        "generator": {"cpu": load.cpu, "lateness_p99_ms": load.lateness, "problem": load.problem},
    }


def _burst(
    system: Sleeper, call: RestCall, steps: Sequence[Step], progress: Progress
) -> dict[str, Any]:
    load = open_loop.run(call, steps, DEADLINE_SECONDS)
    seconds = by_second(load.samples, sum(step.seconds for step in steps))
    idle = by_step(load.samples, steps)[0].accepted_p50 or 0.0
    drained = normal_after(seconds, int(steps[0].seconds + steps[1].seconds), idle)
    progress(
        f"{system.name}: the burst is worked off after"
        f" {'never' if drained is None else f'{drained} s'}"
    )
    return {
        "drained_seconds": drained,
        "limit": DRAIN_LIMIT_SECONDS,
        "met": drained is not None and drained <= DRAIN_LIMIT_SECONDS,
        "seconds": [asdict(second) for second in seconds],
    }


def _words(summary: Summary) -> str:
    ends = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    return f"{summary.offered:.0f}/s offered, {summary.goodput:.0f}/s good ({ends})"
