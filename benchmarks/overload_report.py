"""Writes what overload and timeouts did to each system: JSON, tables, and a chart."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import facts, overload, report, timeouts
from benchmarks.venvs import CHARTS

CHART = facts.ROOT / "docs" / "benchmarks" / "overload.png"
_DRAWER = Path(__file__).parent / "chart.py"


def head() -> dict[str, Any]:
    """When, where and of which commit."""
    commit, dirty = facts.commit()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"when": when, "commit": commit, "dirty": dirty, "environment": facts.environment()}


def write_overload(
    systems: list[dict[str, Any]],
    effort: overload.Effort,
    about: dict[str, Any],
    folder: Path,
    chart: Path,
) -> str:
    """Keeps overload.json and overload.md in the folder, and the chart; returns the table."""
    found = {
        **about,
        "work_ms": 1000 * overload.WORK_SECONDS,
        "deadline_ms": 1000 * overload.DEADLINE_SECONDS,
        "step_seconds": effort.step,
        "systems": systems,
    }
    text = overload_table(found)
    kept = report.keep(found, text, folder, "overload", f"{_dated(about)}-overload")
    CHARTS.ensure()
    subprocess.run([str(CHARTS.bin / "python"), str(_DRAWER), str(kept), str(chart)], check=True)
    return text


def write_timeouts(systems: list[dict[str, Any]], about: dict[str, Any], folder: Path) -> str:
    """Keeps timeouts.json and timeouts.md in the folder; returns the table."""
    text = timeouts_table({**about, "systems": systems})
    report.keep(
        {**about, "systems": systems}, text, folder, "timeouts", f"{_dated(about)}-timeouts"
    )
    return text


def overload_table(found: dict[str, Any]) -> str:
    """Returns a page: what each system did at each step of load, and which targets it met."""
    lines = [
        report.title(found),
        "",
        f"A call takes {found['work_ms']:g} ms and is never joined with another; clients wait"
        f" {found['deadline_ms']:g} ms and do not try again. C is each system's own capacity;"
        f" arrivals are a Poisson process, {found['step_seconds']:g} s for each step. Latencies"
        " in ms, from when a request should have left.",
        "",
        *_steps(found["systems"]),
        "",
        *_verdicts(found["systems"]),
        "",
        "The load generator's own CPU, and how late its requests left at the 99th percentile:",
        "",
    ]
    for system in found["systems"]:
        own = system["generator"]
        lines.append(
            f"- {system['system']}: {own['cpu']:.0%} of a core, {own['lateness_p99_ms']:.1f} ms"
        )
    return "\n".join(lines) + "\n"


def _steps(systems: list[dict[str, Any]]) -> list[str]:
    """Returns a table with a row for each step of each system."""
    names = ("refused", "expired", "late", "abandoned", "failed")
    lines = [*_row(("system", "load", "offered/s", "in time/s", *names)), *_separator(9)]
    for system in systems:
        for step in system["steps"]:
            counts = [str(step["outcomes"].get(name, 0)) for name in names]
            offered, goodput = f"{step['offered']:.0f}", f"{step['goodput']:.0f}"
            load = f"{step['factor']:g} C"
            lines += _row((system["system"], load, offered, goodput, *counts))
    return lines


def _verdicts(systems: list[dict[str, Any]]) -> list[str]:
    """Returns a table with a row for each target of each system."""
    lines = [*_row(("system", "target", "found", "limit", "met")), *_separator(5)]
    for system in systems:
        for verdict in [*system["verdicts"], _burst_verdict(system["burst"])]:
            value = "–" if verdict["found"] is None else f"{verdict['found']:.2f}"
            limit, met = f"{verdict['limit']:g}", _met(verdict["met"])
            lines += _row((system["system"], verdict["what"], value, limit, met))
    return lines


def timeouts_table(found: dict[str, Any]) -> str:
    """When the clients of each system heard that their time was up."""
    lines = [
        report.title(found),
        "",
        (
            f"A timeout of {1000 * timeouts.TIMEOUT_SECONDS:g} ms travels with each request; the"
            f" model is busy with calls of {timeouts.BUSY_SECONDS:g} s; the client itself waits"
            f" {timeouts.PATIENCE_SECONDS:g} s. The times are the milliseconds until it hears."
        ),
        "",
        *_row(("system", "requests", "p50", "p95", "max", "limit", "met", "HTTP status")),
        *_separator(8),
    ]
    for one in found["systems"]:
        statuses = ", ".join(f"{count} × {status}" for status, count in one["statuses"].items())
        times = (
            f"{one['p50_ms']:g}",
            f"{one['p95_ms']:g}",
            f"{one['max_ms']:g}",
            f"{one['limit_ms']:g}",
        )
        lines += _row((one["system"], str(one["probes"]), *times, _met(one["met"]), statuses))
    return "\n".join(lines) + "\n"


def _dated(about: dict[str, Any]) -> str:
    return f"{about['when'][:10]}-{about['commit']}"


def _burst_verdict(burst: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": "seconds until a burst is worked off at 0.9 C",
        **burst,
        "found": burst["drained_seconds"],
    }


def _met(met: bool | None) -> str:
    return "too few to say" if met is None else "yes" if met else "no"


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _separator(columns: int) -> list[str]:
    return ["|---" * columns + "|"]
