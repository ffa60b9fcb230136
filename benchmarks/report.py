"""Writes what was measured: JSON with every single measurement, and a table to read."""

from __future__ import annotations

import json
import statistics
import tempfile
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
    "generator",
    "errors",
)
RESULTS = Path(__file__).parent / "results"
# Where runs are kept that are quick or measured only some figures: they are to look at, not to
# publish.
SCRATCH = Path(tempfile.gettempdir()) / "stellwerk-benchmarks"


def write(report: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes <date>-<commit>.json, latest.json and latest.md; returns the first."""
    return keep(
        report, table(report), folder, "latest", f"{report['when'][:10]}-{report['commit']}"
    )


def keep(report: dict[str, Any], text: str, folder: Path, name: str, dated: str) -> Path:
    """Writes the report as <dated>.json and <name>.json and the text as <name>.md; returns the
    first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = json.dumps(report, indent=1) + "\n"
    (folder / f"{dated}.json").write_text(values)
    (folder / f"{name}.json").write_text(values)
    (folder / f"{name}.md").write_text(text)
    return folder / f"{dated}.json"


def title(report: dict[str, Any]) -> str:
    """When, of which commit, and on what machine."""
    facts = report["environment"]
    local = " with local changes" if report["dirty"] else ""
    return (
        f"# Measured {report['when']} at commit {report['commit']}{local}\n\n"
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
        f"Python {facts['python']}, load average at the start {facts['load_average'][0]}."
    )


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"{title(report)} {report['effort']}. Pinning: {report['environment']['pinning']}.",
        "",
        *(f"- {name}: {_versions(versions)}" for name, versions in report["systems"].items()),
        "",
        (
            "A ratio is the median over interleaved pairs, ours ÷ theirs; the range shows all"
            " pairs. The other columns are medians of single measurements, ours / theirs."
            " `generator` is the load generator's own CPU time as a share of one core. A run in"
            " which a request failed is invalid and reaches no target."
        ),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += [f"| {' | '.join(_row(figure))} |" for figure in report["figures"]]
    lines += _starts(report["starts"])
    lines += [
        "",
        (
            "Where the CPU time goes, in CPU-seconds per 1,000 requests and as a share, ours then"
            " theirs:"
        ),
        "",
    ]
    for figure in report["figures"]:
        if "pairs" in figure:
            lines += [
                f"- {figure['id']}: {_parts(figure, 'ours')}",
                f"  - {_parts(figure, 'theirs')}",
            ]
    return "\n".join(lines) + "\n"


def _starts(starts: dict[str, Any]) -> list[str]:
    """Returns B10: how long each system took to start, and its memory at rest."""
    lines = [
        "",
        "B10, before anybody asks for anything: seconds until ready, and memory in MB:",
        "",
    ]
    for name, start in starts.items():
        parts = ", ".join(
            f"{part} {size:.0f}" for part, size in start["memory_parts"].items() if size
        )
        lines.append(f"- {name}: {start['seconds']:.1f} s, {start['memory']:.0f} MB ({parts})")
    return lines


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _parts(figure: dict[str, Any], side: str) -> str:
    parts = [pair[side]["cpu_parts"] for pair in figure["pairs"]]
    medians = {name: statistics.median(part.get(name, 0.0) for part in parts) for name in parts[0]}
    whole = sum(medians.values()) or 1.0
    ordered = sorted(medians.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:.3f} ({value / whole:.0%})" for name, value in ordered)


def _row(figure: dict[str, Any]) -> list[str]:
    reached = "yes" if figure["reached"] else "no" if figure.get("valid", True) else "invalid"
    if "failed" in figure:
        return _padded([figure["id"], f"not measured: {figure['failed']}"])
    if "value" in figure:
        value, lowest, highest = (
            f"{figure[key]:.3f} {figure['unit']}" for key in ("value", "lowest", "highest")
        )
        cells = [figure["id"], figure["title"], f"**{value}**", f"{lowest} to {highest}"]
        return _padded([*cells, _target(figure), reached])
    if "pairs" not in figure:
        return _padded(
            [
                figure["id"],
                figure["title"],
                f"**{figure['loads']:g}**",
                "",
                f"{figure['target']:g}",
                reached,
            ]
        )
    errors = [sum(pair[side]["errors"] for pair in figure["pairs"]) for side in ("ours", "theirs")]
    return [
        figure["id"],
        figure["title"],
        f"**{figure['ratio']:.2f}**",
        f"{figure['lowest']:.2f} to {figure['highest']:.2f}",
        _target(figure),
        reached,
        _both(figure, "per_second", ",.0f"),
        _both(figure, "p50", ",.2f"),
        _both(figure, "p99", ",.2f"),
        _both(figure, "cpu", ",.3f"),
        _both(figure, "generator", ".0%"),
        f"{errors[0]:,} / {errors[1]:,}",
    ]


def _target(figure: dict[str, Any]) -> str:
    """Returns the number that a figure must reach, and the one that it should."""
    sign = "≥" if figure["better"] == "higher" else "≤"
    aim = f" (aim {figure['aim']:g})" if figure.get("aim") is not None else ""
    return f"{sign} {figure['target']:g}{aim}"


def _padded(cells: list[str]) -> list[str]:
    return cells + [""] * (len(COLUMNS) - len(cells))


def _both(figure: dict[str, Any], key: str, spec: str) -> str:
    return " / ".join(
        _median([pair[side].get(key) for pair in figure["pairs"]], spec)
        for side in ("ours", "theirs")
    )


def _median(values: list[float | None], spec: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.median(known), spec) if known else "–"
