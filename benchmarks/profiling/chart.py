"""Draws the CPU time of a request by process and by room, as a PNG. Run by the environment that has
matplotlib, with nothing of this project.

python chart.py bars.json where-the-time-goes.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found,unused-ignore]

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

PROCESS, ROOM = "#1f6feb", "#1a7f37"


def draw(data: dict[str, Any], target: Path) -> None:
    """Draws processes at each number of connections, and rooms of each service at the last."""
    rows = ((data["levels"], PROCESS), (data["services"], ROOM))
    columns = max(len(panels) for panels, _ in rows)
    figure, axes = plt.subplots(
        2,
        columns,
        figsize=(4.6 * columns, 8.4),
        squeeze=False,
        gridspec_kw={"height_ratios": [2, 5]},
    )
    for line, (panels, color) in zip(axes, rows, strict=True):
        for axis, panel in zip(line, panels, strict=False):
            _bars(axis, panel, color)
        for axis in line[len(panels) :]:
            axis.set_visible(False)
    figure.suptitle("CPU µs of one REST prediction", fontsize=13)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def _bars(axis: Any, panel: dict[str, Any], color: str) -> None:
    names, values = list(panel["bars"]), list(panel["bars"].values())
    bars = axis.barh(names, values, color=color)
    axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f"{panel['title']}: {sum(values):.1f} µs", fontsize=10)
    axis.margins(x=0.18)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
