"""The figures: what is divided by what, and which number the ratio should reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
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


Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio, the number that it must reach (`target`) and the one that it should (`aim`)."""

    id: str
    title: str
    target: float
    better: Better
    unit: str
    # The number of a measurement that is compared.
    value: Callable[[Measurement], float] = field(
        default=lambda measurement: measurement.per_second
    )
    aim: float | None = None


def _p50(measurement: Measurement) -> float:
    return measurement.p50


def _cpu(measurement: Measurement) -> float:
    return measurement.cpu


def _per_cpu_second(measurement: Measurement) -> float:
    return 1000 / measurement.cpu


_REST = "REST Open Inference JSON, {} connections, authenticated ÷ {}"
B1 = Figure("B1", _REST.format(64, "MLServer"), 8, "higher", "req/s", aim=12)
B2 = Figure("B2", _REST.format(256, "Triton"), 1.5, "higher", "req/s", aim=2)
_GRPC = "gRPC ModelInfer, 64 in flight on {}, whole path ÷ bare grpc.aio echo"
B3A = Figure("B3a", _GRPC.format("1 connection"), 0.8, "higher", "req/s")
B3B = Figure("B3b", _GRPC.format("64 connections"), 0.8, "higher", "req/s")
B4 = Figure("B4", "p50 of one lone REST request ÷ MLServer's", 2.4, "lower", "ms", _p50, aim=2)
B5 = Figure(
    "B5",
    "p50 of 1 MiB of FP32 in and out over gRPC ÷ bare grpc.aio echo",
    2.2,
    "lower",
    "ms",
    _p50,
    aim=2,
)
_B9_TARGET = 1.2
_CPU = "CPU time of a request "
B9A = Figure(
    "B9a",
    _CPU + "with {:,} registered models ÷ with few",
    _B9_TARGET,
    "lower",
    "CPU-s/1,000",
    _cpu,
)
B9B = Figure(
    "B9b", _CPU + "with {:,} attached runtimes ÷ with 1", _B9_TARGET, "lower", "CPU-s/1,000", _cpu
)
B17 = Figure(
    "B17",
    _CPU + "at log level info ÷ at warning, 256 connections",
    1.25,
    "lower",
    "CPU-s/1,000",
    _cpu,
)
B18 = Figure(
    "B18",
    "mixed load, requests per CPU-second of all processes ÷ {}",
    3,
    "higher",
    "req/CPU-s",
    _per_cpu_second,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure that is no ratio: one number of each measurement, of which the median counts.

    `valid` is false if a request failed.
    """

    id: str
    title: str
    target: float
    better: Better
    unit: str
    values: Sequence[float]
    valid: bool = True

    def as_json(self) -> dict[str, Any]:
        """Returns the median, the range and whether the target was met."""
        middle = median(self.values)
        return {
            "id": self.id,
            "title": self.title,
            "target": self.target,
            "better": self.better,
            "unit": self.unit,
            "value": round(middle, 4),
            "lowest": round(min(self.values), 4),
            "highest": round(max(self.values), 4),
            "valid": self.valid,
            "reached": self.valid and met(middle, self.target, self.better),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """A figure as measured."""

    figure: Figure
    comparison: Comparison
    ours: list[Measurement]
    theirs: list[Measurement]

    @property
    def valid(self) -> bool:
        """Returns whether all requests of all measurements were answered well."""
        return not any(one.errors for one in [*self.ours, *self.theirs])

    @property
    def reached(self) -> bool:
        """Returns whether the target was met, in a valid run."""
        return self.valid and met(self.comparison.ratio, self.figure.target, self.figure.better)

    def as_json(self) -> dict[str, Any]:
        """Returns all values that were measured for the figure."""
        return {
            "id": self.figure.id,
            "title": self.figure.title,
            "target": self.figure.target,
            "aim": self.figure.aim,
            "better": self.figure.better,
            "unit": self.figure.unit,
            "ratio": round(self.comparison.ratio, 4),
            "lowest": round(self.comparison.lowest, 4),
            "highest": round(self.comparison.highest, 4),
            "verdict": self.comparison.verdict,
            "valid": self.valid,
            "reached": self.reached,
            "pairs": [
                {"ours": ours.as_json(), "theirs": theirs.as_json()}
                for ours, theirs in zip(self.ours, self.theirs, strict=True)
            ],
        }


def gateway_cpu(result: Result) -> Reading:
    """Returns B16: CPU milliseconds of the gateway for a request under B2's load."""
    values = [one.cpu_parts["api_gateway"] for one in result.ours]
    return Reading(
        "B16", "CPU of the gateway for a request of B2", 0.03, "lower", "ms", values, result.valid
    )


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
