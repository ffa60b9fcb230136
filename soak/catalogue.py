"""The soaks by name. Another one is a function that takes a Progress, returns an Outcome, and
stands in SOAKS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from soak.large_models import KINDS, MB
from soak.model_memory import Memory, evictions, loads_and_unloads, runtime

Progress = Callable[[str], None]
ROUNDS = 50
SIZE = 200 * MB
# What may be left of the start's memory after the last round.
MOST_GROWTH = 0.15


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
}
