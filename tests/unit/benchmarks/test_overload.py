"""What a run under overload is taken to say."""

from __future__ import annotations

import pytest

from benchmarks import overload_report
from benchmarks.arrivals import Step
from benchmarks.open_loop import Outcome, Sample
from benchmarks.overload_summary import by_second, by_step, normal_after, summarise, verdicts
from benchmarks.timeouts import Heard, summary

CAPACITY = 100
FACTORS = (0.5, 1, 2, 4, 0.5)
SECONDS = 20
LAST = 4 * SECONDS


def _stretch(
    start: float, seconds: float, rate: float, outcome: Outcome, latency: float
) -> list[Sample]:
    return [Sample(start + index / rate, latency, outcome) for index in range(int(rate * seconds))]


def _run(good_at_four: float, slow_seconds: int = 0) -> list[Sample]:
    """Returns a run of perfect admission but for the step of 4 C.

    In the last step the first `slow_seconds` are still served badly.
    """
    samples: list[Sample] = []
    for index, factor in enumerate(FACTORS):
        start, rate = index * SECONDS, factor * CAPACITY
        good = good_at_four if factor == 4 else min(rate, CAPACITY)
        if good:
            samples += _stretch(start, SECONDS, good, "good", 12.0)
        if rate > good:
            samples += _stretch(start, SECONDS, rate - good, "refused", 5.0)
    late = [
        Sample(one.at, 1900.0, "late") if LAST <= one.at < LAST + slow_seconds else one
        for one in samples
    ]
    return sorted(late, key=lambda sample: sample.at)


def _verdicts(
    samples: list[Sample], memory: list[tuple[float, float]] | None = None
) -> dict[str, bool | None]:
    steps = by_step(samples, [Step(factor * CAPACITY, SECONDS) for factor in FACTORS])
    seconds = by_second(samples, len(FACTORS) * SECONDS)
    found = verdicts(steps, seconds, memory or [(0.0, 100.0), (70.0, 105.0)], LAST, deadline=2.0)
    return {verdict.what: verdict.met for verdict in found}


def test_a_system_that_refuses_what_is_too_much_meets_every_target() -> None:
    assert set(_verdicts(_run(good_at_four=CAPACITY)).values()) == {True}


def test_a_collapse_at_four_times_the_capacity_is_seen() -> None:
    assert _verdicts(_run(good_at_four=70))["goodput at 4 C ÷ peak goodput"] is False
    assert _verdicts(_run(good_at_four=0))["p99 of accepted at 4 C, ms"] is None


@pytest.mark.parametrize(("slow", "met"), [(0, True), (10, True), (11, False), (SECONDS, False)])
def test_things_must_be_normal_within_ten_seconds(slow: int, met: bool) -> None:
    assert _verdicts(_run(CAPACITY, slow))["seconds until normal after 4 C"] is met


def test_memory_that_grows_is_seen() -> None:
    grown = _verdicts(_run(CAPACITY), [(0.0, 100.0), (10.0, 100.0), (75.0, 120.0), (90.0, 100.0)])

    assert grown["most memory ÷ memory at 0.5 C"] is False


def test_a_request_that_was_let_in_and_timed_out_counts_as_accepted() -> None:
    samples = _stretch(0, 1, 50, "good", 10.0) + _stretch(0, 1, 50, "expired", 2000.0)
    samples += _stretch(0, 1, 100, "refused", 1.0)

    found = summarise(samples, 0, 1, needed=1)

    assert (found.accepted_p50, found.accepted_p99, found.refused_p99) == (10.0, 2000.0, 1.0)
    assert (found.offered, found.goodput, found.outcomes) == (
        200,
        50,
        {"good": 50, "refused": 100, "expired": 50},
    )


def test_one_quiet_second_is_not_yet_normal() -> None:
    bad, good = ("late", 1900.0), ("good", 12.0)
    outcomes = [bad, good, good, bad, good, good, good, bad]
    samples = [one for at, (end, ms) in enumerate(outcomes) for one in _stretch(at, 1, 50, end, ms)]  # type: ignore[arg-type]

    assert normal_after(by_second(samples, len(outcomes)), 0, idle_p50=12.0) == 4
    assert normal_after(by_second(samples, 4), 0, idle_p50=12.0) is None


def test_everyone_served_but_only_after_a_long_wait_is_not_normal() -> None:
    seconds = by_second(_stretch(0, 5, 50, "good", 1500.0), 5)

    assert normal_after(seconds, 0, idle_p50=12.0) is None


def test_timeouts_are_met_only_if_every_client_heard_in_time() -> None:
    heard = [Heard(504, 205.0)] * 59
    assert summary([*heard, Heard(429, 3.0)])["met"] is True
    assert summary([*heard, Heard(504, 251.0)])["met"] is False
    assert summary([*heard, Heard(429, 3.0)])["statuses"] == {"429": 1, "504": 59}


def _about() -> dict[str, object]:
    machine = {
        "cpu": "a",
        "cores": 2,
        "memory_gib": 4.0,
        "system": "L",
        "python": "3",
        "load_average": [0.1],
    }
    return {
        "when": "2030-01-02T03:04:05+00:00",
        "commit": "abc",
        "dirty": False,
        "environment": machine,
    }


def test_the_tables_say_what_was_found() -> None:
    samples = _run(good_at_four=70)
    steps = by_step(samples, [Step(factor * CAPACITY, SECONDS) for factor in FACTORS])
    system = {
        "system": "Peer",
        "steps": [
            {
                "factor": factor,
                "offered": one.offered,
                "goodput": one.goodput,
                "outcomes": one.outcomes,
            }
            for factor, one in zip(FACTORS, steps, strict=True)
        ],
        "verdicts": [{"what": "goodput", "found": 0.7, "limit": 0.8, "met": False}],
        "burst": {"drained_seconds": None, "limit": 30, "met": False},
        "generator": {"cpu": 0.1, "lateness_p99_ms": 2.0},
    }
    text = overload_report.overload_table(
        {**_about(), "work_ms": 10, "deadline_ms": 2000, "step_seconds": 20, "systems": [system]}
    )

    assert "| Peer | 4 C | 400 | 70 | 6600 | 0 | 0 | 0 | 0 |" in text
    assert "| Peer | goodput | 0.70 | 0.8 | no |" in text
    assert "| Peer | seconds until a burst is worked off at 0.9 C | – | 30 | no |" in text

    timeouts = overload_report.timeouts_table(
        {**_about(), "systems": [{"system": "Peer", **summary([Heard(504, 205.0)] * 50)}]}
    )
    assert "| Peer | 50 | 205 | 205 | 205 | 250 | yes | 50 × 504 |" in timeouts
