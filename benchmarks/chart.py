"""Draws what overload did to each system, as a PNG. Run by the environment that has matplotlib,
with nothing of ours.

python chart.py overload.json overload.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found,unused-ignore]

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

OFFERED, GOOD, REFUSED, LATE = "#9aa0a6", "#1a7f37", "#d97706", "#b42318"
ROWS = ("requests per second", "latency, ms", "memory ÷ its start")


def draw(report: dict[str, Any], target: Path) -> None:
    """One column for each system; what is offered grows from half of its capacity to four times
    that and falls back.
    """
    systems = report["systems"]
    figure, axes = plt.subplots(
        len(ROWS),
        len(systems),
        figsize=(5.2 * len(systems), 8.6),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, system in enumerate(systems):
        _rates(axes[0][column], system)
        _latencies(axes[1][column], system, report["deadline_ms"])
        _memory(axes[2][column], system)
        axes[0][column].set_title(
            f"{system['system']}  (capacity {system['capacity']:.0f}/s)", fontsize=12, pad=20
        )
        axes[2][column].set_xlabel("seconds")
        for row, axis in enumerate(axes[:, column]):
            _mark_steps(axis, system, named=row == 0)
    for row, label in enumerate(ROWS):
        axes[row][0].set_ylabel(label)
        axes[row][0].legend(
            loc="lower left" if row == 1 else "upper left", fontsize=8, framealpha=0.9
        )
    work, patience = report["work_ms"], report["deadline_ms"] / 1000
    figure.suptitle(
        f"A model that takes {work:g} ms a call, asked by clients that wait {patience:g} s and do"
        " not try again",
        fontsize=13,
    )
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def _rates(axis: Any, system: dict[str, Any]) -> None:
    seconds = system["seconds"]
    times = range(len(seconds))
    lost = ("late", "expired", "abandoned", "failed")
    axis.step(
        times,
        [second["offered"] for second in seconds],
        where="post",
        color=OFFERED,
        label="offered",
    )
    axis.plot(
        times,
        [second["goodput"] for second in seconds],
        color=GOOD,
        linewidth=2.2,
        label="answered in time",
    )
    for names, color, label in (
        (("refused",), REFUSED, "refused at once"),
        (lost, LATE, "too late or timed out"),
    ):
        counts = [sum(second["outcomes"].get(name, 0) for name in names) for second in seconds]
        axis.plot(times, counts, color=color, linewidth=1.2, label=label)
    axis.axhline(system["capacity"], color="black", linewidth=0.7, linestyle=":")
    axis.set_ylim(bottom=0)


def _latencies(axis: Any, system: dict[str, Any], deadline: float) -> None:
    seconds = system["seconds"]
    for key, label, color, width in (
        ("accepted_p99", "accepted, p99 of the second", GOOD, 1.6),
        ("accepted_p50", "accepted, median", "#57ab5a", 1.0),
        ("refused_p99", "refused, p99", REFUSED, 1.2),
    ):
        points = [(at, second[key]) for at, second in enumerate(seconds) if second[key] is not None]
        axis.plot(
            [at for at, _ in points],
            [value for _, value in points],
            color=color,
            linewidth=width,
            label=label,
        )
    axis.axhline(deadline, color=LATE, linewidth=0.9, linestyle="--", label="deadline")
    axis.set_yscale("log")


def _memory(axis: Any, system: dict[str, Any]) -> None:
    memory = system["memory_mb"]
    label = f"all its processes ({memory[0][1]:,.0f} MB at the start)" if memory else "not read"
    times = [at for at, _ in memory]
    axis.plot(times, [value / memory[0][1] for _, value in memory], color="#1f6feb", label=label)
    axis.set_ylim(0.9, 1.4)
    axis.legend(loc="upper left", fontsize=8)


def _mark_steps(axis: Any, system: dict[str, Any], named: bool) -> None:
    start = 0.0
    for step in system["steps"]:
        axis.axvline(start, color="#d0d7de", linewidth=0.8)
        if named:
            middle, across = start + step["duration"] / 2, axis.get_xaxis_transform()
            axis.text(
                middle,
                1.01,
                f"{step['factor']:g} C",
                transform=across,
                ha="center",
                fontsize=9,
                color="#57606a",
            )
        start += step["duration"]
    axis.set_xlim(0, start)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
