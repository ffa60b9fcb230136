"""The soaks by name. Another one is a function that takes a Progress, returns an Outcome, and
stands in SOAKS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soak import http_connections, overload_memory
from soak.http_streams import rules
from soak.http_streams.run import run_all
from soak.large_models import KINDS, MB
from soak.model_memory import Memory, evictions, loads_and_unloads, runtime

Progress = Callable[[str], None]
ROUNDS = 50
SIZE = 200 * MB
# What may be left of the start's memory after the last round.
MOST_GROWTH = 0.15

STREAMS = 1_000_000
# Where a run over streams that was cut short goes on.
_STREAMS_DONE = Path(__file__).parent / "results" / ".http-streams.json"
SLOW, IDLE = 1_000, 10_000
MOST_SLOWER = 1.5

OVERLOAD_SECONDS = 600.0
# Of resident memory under overload after its first minute, and of the start's memory afterwards.
MOST_SPREAD = 0.05
MOST_LEFT = 0.10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak found: a promise, whether it was kept, and a table of what was measured."""

    promise: str
    kept: bool
    columns: tuple[str, ...]
    rows: list[list[str | int | float]]


Soak = Callable[[Progress], Outcome]


def models_come_and_go(progress: Progress) -> Outcome:
    """Fifty loads, calls and unloads of a model of 200 MB of each kind, in a runtime process."""
    rows: list[list[str | int | float]] = []
    kept = True
    for kind in KINDS:
        with runtime() as under_test:
            memory = loads_and_unloads(under_test, kind, ROUNDS, SIZE)
        kept = kept and memory.growth <= MOST_GROWTH
        rows.append([kind, *_megabytes(memory), f"{memory.growth:+.1%}", round(memory.seconds)])
        progress(f"{kind}: {memory.growth:+.1%} after {ROUNDS} rounds")
    promise = (
        f"after {ROUNDS} loads and unloads of a model of {SIZE // MB} MB a runtime has within"
        f" {MOST_GROWTH:.0%} of the memory that it had with its libraries loaded and no model"
        " (resident MB)"
    )
    columns = (
        "kind",
        "at start",
        "with libraries",
        "with the model, at most",
        "after round 1",
        "after the last",
    )
    return Outcome(promise, kept, (*columns, "growth", "seconds"), rows)


def models_make_room(progress: Progress) -> Outcome:
    """Two models of 200 MB in turns, where there is memory for one: each call evicts the other
    model.
    """
    rows: list[list[str | int | float]] = []
    kept = True
    for kind in KINDS:
        with runtime(memory_bytes=SIZE * 3 // 2) as under_test:
            memory = evictions(under_test, kind, ROUNDS // 2, SIZE)
        most = max(memory.loaded) - memory.baseline
        kept = kept and most <= SIZE * (1 + 2 * MOST_GROWTH)
        rows.append([kind, *_megabytes(memory), round(most / MB), round(memory.seconds)])
        progress(
            f"{kind}: {most / MB:.0f} MB above the start at most, with models of {SIZE / MB:.0f} MB"
            " in turns"
        )
    promise = (
        f"{ROUNDS // 2} evictions in turns of two models of {SIZE // MB} MB: there is memory of one"
        " at a time (MB)"
    )
    columns = (
        "kind",
        "at start",
        "with libraries",
        "most",
        "after call 1",
        "after the last",
        "above start",
        "seconds",
    )
    return Outcome(promise, kept, columns, rows)


def streams_mean_the_same(progress: Progress) -> Outcome:
    """A million streams of bytes, to the gateway's HTTP server, to uvicorn and to h11."""
    shown = 0

    def done(streams: int) -> None:
        nonlocal shown
        if streams * 50 // STREAMS > shown:
            shown = streams * 50 // STREAMS
            bar = "#" * shown + "." * (50 - shown)
            progress(f"[{bar}] {streams:,} streams")

    report = run_all(STREAMS, done, _STREAMS_DONE)
    for number, text in report.unexplained[:20]:
        progress(f"stream {number}: {text[:500]}")
    _STREAMS_DONE.unlink(missing_ok=True)
    reasons = rules.reasons()
    rows: list[list[str | int | float]] = [
        [rule, count, reasons[rule]] for rule, count in report.explained.most_common()
    ]
    promise = (
        f"{report.streams:,} streams of bytes, well-formed, careless and hostile, in pieces of any"
        f" size, with {report.requests:,} requests in them, mean the same to the gateway, uvicorn"
        f" and h11; each difference has a rule, and {len(report.unexplained)} have none"
    )
    columns = ("difference that is allowed", "times", "reason")
    return Outcome(promise, not report.unexplained, columns, rows)


def others_do_not_notice(progress: Progress) -> Outcome:
    """Slow senders and idle connections, and another client beside them."""
    found = http_connections.measure(SLOW, IDLE, rounds=4, samples=15)
    progress(f"{SLOW:,} slow and {IDLE:,} idle connections: p99 × {found.ratio:.2f}")
    promise = (
        f"{SLOW:,} connections that send a byte a second and {IDLE:,} idle ones change the 99th"
        f" percentile of another client's requests by less than × {MOST_SLOWER}"
    )
    columns = ("p99 alone, ms", "p99 beside them, ms", "ratio")
    row: list[str | int | float] = [
        round(found.quiet * 1000, 3),
        round(found.crowded * 1000, 3),
        round(found.ratio, 2),
    ]
    return Outcome(promise, found.ratio < MOST_SLOWER, columns, [row])


def overload_leaves_nothing(progress: Progress) -> Outcome:
    """Ten minutes of four times the capacity, with small and large tensors mixed."""
    found = overload_memory.measure(OVERLOAD_SECONDS, "auto", progress)
    kept = all(
        level.spread <= MOST_SPREAD and level.growth <= MOST_LEFT for level in found.levels.values()
    )
    ends = ", ".join(f"{count:,} {outcome}" for outcome, count in found.outcomes.items())
    promise = (
        f"in {OVERLOAD_SECONDS / 60:.0f} minutes of {overload_memory.FACTOR:g} × the capacity of"
        f" {found.capacity:.0f} requests a second, tensors of 8 bytes to 512 KiB mixed, resident"
        f" memory stays within {MOST_SPREAD:.0%} after the first minute, and is back at the start's"
        f" + {MOST_LEFT:.0%} afterwards (MB; medians of 20 s; the requests: {ends})"
    )
    columns = (
        "process", "at start", "lowest after a minute", "highest", "spread", "peak", "afterwards",
        "left",
    )  # fmt: skip
    rows: list[list[str | int | float]] = []
    for name, level in found.levels.items():
        sizes = [level.start, min(level.windows), max(level.windows), level.most, level.end]
        start, lowest, highest, most, end = [round(size / MB, 1) for size in sizes]
        spread, growth = f"{level.spread:+.1%}", f"{level.growth:+.1%}"
        rows.append([name, start, lowest, highest, spread, most, end, growth])
        progress(f"{name}: {spread} under overload, {growth} afterwards")
    return Outcome(promise, kept, columns, rows)


def _megabytes(memory: Memory) -> list[int]:
    read = (
        memory.bare,
        memory.baseline,
        max(memory.loaded),
        memory.unloaded[0],
        memory.unloaded[-1],
    )
    return [round(value / MB) for value in read]


SOAKS: dict[str, Soak] = {
    "models-come-and-go": models_come_and_go,
    "models-make-room": models_make_room,
    "http-streams": streams_mean_the_same,
    "http-connections": others_do_not_notice,
    "overload-memory": overload_leaves_nothing,
}
