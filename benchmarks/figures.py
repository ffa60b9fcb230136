"""The figures: what is divided by what, and which number the ratio should reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.measurement import Measurement
from benchmarks.ratios import Comparison, compare, met

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    pairs: int
    seconds: float
    warm_up: float
    predictions: int = 100
    # Registered models and simulated runtimes of B9.
    models: int = 1000
    runtimes: int = 49


FULL = Plan(pairs=7, seconds=6, warm_up=4)
QUICK = Plan(pairs=3, seconds=3, warm_up=1, models=200)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and the number that it should reach."""

    id: str
    title: str
    target: float
    better: Literal["higher", "lower"]
    unit: str
    # Which number of a measurement is compared.
    value: Callable[[Measurement], float] = field(
        default=lambda measurement: measurement.per_second
    )


B1 = Figure(
    "B1", "REST Open Inference JSON, 64 connections, authenticated ÷ MLServer", 6, "higher", "req/s"
)
B2 = Figure(
    "B2",
    "REST Open Inference JSON, 256 connections, authenticated ÷ Triton",
    0.8,
    "higher",
    "req/s",
)
B3 = Figure(
    "B3", "gRPC ModelInfer, 64 in flight, whole path ÷ bare grpc.aio echo", 0.6, "higher", "req/s"
)
B4 = Figure(
    "B4",
    "p50 of one lone REST request ÷ MLServer's",
    2,
    "lower",
    "ms",
    value=lambda measurement: measurement.p50,
)
B5 = Figure(
    "B5",
    "p50 of 1 MiB of FP32 in and out over gRPC ÷ bare grpc.aio echo",
    2.5,
    "lower",
    "ms",
    value=lambda measurement: measurement.p50,
)
_B9_TARGET = 1.2
B9A = Figure(
    "B9a",
    "CPU time of a request with {:,} registered models ÷ with few",
    _B9_TARGET,
    "lower",
    "CPU-s/1,000",
    value=lambda measurement: measurement.cpu,
)
B9B = Figure(
    "B9b",
    "CPU time of a request with {:,} attached runtimes ÷ with 1",
    _B9_TARGET,
    "lower",
    "CPU-s/1,000",
    value=lambda measurement: measurement.cpu,
)


@dataclass(frozen=True, slots=True)
class Result:
    """A figure as measured."""

    figure: Figure
    comparison: Comparison
    ours: list[Measurement]
    theirs: list[Measurement]

    @property
    def reached(self) -> bool:
        """Whether the target was met."""
        return met(self.comparison.ratio, self.figure.target, self.figure.better)

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured for it."""
        return {
            "id": self.figure.id,
            "title": self.figure.title,
            "target": self.figure.target,
            "better": self.figure.better,
            "unit": self.figure.unit,
            "ratio": round(self.comparison.ratio, 4),
            "lowest": round(self.comparison.lowest, 4),
            "highest": round(self.comparison.highest, 4),
            "verdict": self.comparison.verdict,
            "reached": self.reached,
            "pairs": [
                {"ours": ours.as_json(), "theirs": theirs.as_json()}
                for ours, theirs in zip(self.ours, self.theirs, strict=True)
            ],
        }


Load = Callable[[float], Measurement]


def measure(figure: Figure, plan: Plan, ours: Load, theirs: Load, progress: Progress) -> Result:
    """Warms both up, then measures them in turns: ours, theirs, ours, theirs."""
    for load in (ours, theirs):
        load(plan.warm_up)
    pairs = list(_pairs(figure, plan, ours, theirs, progress))
    mine, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    comparison = compare([figure.value(one) for one in mine], [figure.value(one) for one in others])
    return Result(figure, comparison, mine, others)


def _pairs(
    figure: Figure, plan: Plan, ours: Load, theirs: Load, progress: Progress
) -> Iterator[tuple[Measurement, Measurement]]:
    for number in range(1, plan.pairs + 1):
        mine, other = ours(plan.seconds), theirs(plan.seconds)
        failed = f", {mine.errors} + {other.errors} errors" if mine.errors or other.errors else ""
        progress(
            f"{figure.id} pair {number}/{plan.pairs}: {figure.value(mine):,.2f} {figure.unit}"
            f" against {figure.value(other):,.2f} ({other.system}), ratio"
            f" {figure.value(mine) / figure.value(other):.2f}{failed}"
        )
        yield mine, other
