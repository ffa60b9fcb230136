"""Writes what was measured: JSON with every single measurement, and a table to read."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

COLUMNS = (
    "id",
    "figure",
    "ratio",
    "range",
    "target",
    "reached",
    "per second",
    "p50 ms",
    "p99 ms",
    "CPU-s per 1,000",
    "errors",
)
RESULTS = Path(__file__).parent / "results"


def write(report: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes <date>-<commit>.json, latest.json and latest.md; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + "\n"
    kept = folder / f"{report['when'][:10]}-{report['commit']}.json"
    kept.write_text(text)
    (folder / "latest.json").write_text(text)
    (folder / "latest.md").write_text(table(report))
    return kept


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts = report["environment"]
    local = " with local changes" if report["dirty"] else ""
    lines = [
        f"# Measured {report['when']} at commit {report['commit']}{local}",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
        f"Python {facts['python']}, load average at the start {facts['load_average'][0]}. "
        f"Broker: {report['systems']['Stellwerk'].get('broker', 'unknown')}. {report['effort']}. "
        f"Pinning: {facts['pinning']}.",
        "",
        "A ratio is the median over interleaved pairs, ours ÷ theirs; the range shows all pairs. "
        "The other columns are medians of single measurements, ours / theirs.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += [f"| {' | '.join(_row(figure))} |" for figure in report["figures"]]
    lines += ["", "Where our CPU-seconds per 1,000 requests go:", ""]
    lines += [f"- {figure['id']}: {_parts(figure)}" for figure in report["figures"] if "pairs" in figure]
    return "\n".join(lines) + "\n"


def _parts(figure: dict[str, Any]) -> str:
    parts = [pair["ours"]["cpu_parts"] for pair in figure["pairs"]]
    medians = {name: statistics.median(part.get(name, 0.0) for part in parts) for name in parts[0]}
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(medians.items(), key=lambda item: -item[1]))


def _row(figure: dict[str, Any]) -> list[str]:
    reached = "yes" if figure["reached"] else "no"
    if "failed" in figure:
        return _padded([figure["id"], f"not measured: {figure['failed']}"])
    if "pairs" not in figure:
        return _padded(
            [figure["id"], figure["title"], f"**{figure['loads']:g}**", "", f"{figure['target']:g}", reached]
        )
    sign = "≥" if figure["better"] == "higher" else "≤"
    errors = [sum(pair[side]["errors"] for pair in figure["pairs"]) for side in ("ours", "theirs")]
    return [
        figure["id"],
        figure["title"],
        f"**{figure['ratio']:.2f}**",
        f"{figure['lowest']:.2f} to {figure['highest']:.2f}",
        f"{sign} {figure['target']:g}",
        reached,
        _both(figure, "per_second", ",.0f"),
        _both(figure, "p50", ",.2f"),
        _both(figure, "p99", ",.2f"),
        _both(figure, "cpu", ",.2f"),
        f"{errors[0]:,} / {errors[1]:,}",
    ]


def _padded(cells: list[str]) -> list[str]:
    return cells + [""] * (len(COLUMNS) - len(cells))


def _both(figure: dict[str, Any], key: str, spec: str) -> str:
    return " / ".join(_median([pair[side][key] for pair in figure["pairs"]], spec) for side in ("ours", "theirs"))


def _median(values: list[float | None], spec: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.median(known), spec) if known else "–"
