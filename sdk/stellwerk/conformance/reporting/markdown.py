"""Writes a report as a page of Markdown: numbers first, then failures, then every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stellwerk.conformance.cases.case import Basis
from stellwerk.conformance.reporting.report import Report, Result, Verdict, sentence

# Characters of a cell that a table shows.
_SHOWN = 160


def as_markdown(report: Report) -> str:
    """Returns the whole page."""
    name = report.about.get("server", "server")
    parts = [
        f"# Open Inference Protocol: {name}",
        "\n".join(f"- {key}: {value}" for key, value in report.about.items()),
        (
            "*Specified*: the text of the protocol or of the extension says so. *Convention*: the"
            " common clients rely on it. *Sensible*: the text is silent, and this is our reading; a"
            " failure there breaks no promise."
        ),
        _summary(report),
        _failures(report),
        _skips(report),
        "## All cases",
        *(_area(str(area), results) for area, results in report.areas().items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(report: Report) -> str:
    rows = [(str(area), *_four(report, results)) for area, results in report.areas().items()]
    rows.append(("**all**", *_four(report, report.results)))
    columns = ("area", *(f"{basis}: passed / failed" for basis in Basis), "skipped")
    return "## Summary\n\n" + sentence(report.counts()) + "\n\n" + _table(columns, rows)


def _four(report: Report, results: Sequence[Result]) -> list[str]:
    cells = []
    for basis in Basis:
        mine = [result.verdict for result in results if result.case.basis is basis]
        passed, failed = mine.count(Verdict.PASS), mine.count(Verdict.FAIL)
        cells.append(f"{passed} / {failed}" if passed or failed else "")
    skipped = sum(result.verdict is Verdict.SKIP for result in results)
    return [*cells, str(skipped or "")]


def _failures(report: Report) -> str:
    sections = []
    for basis in Basis:
        failed = [r for r in report.results if r.verdict is Verdict.FAIL and r.case.basis is basis]
        if failed:
            rows = [
                (r.case.title, r.expected, r.got, r.case.place, f"`{r.case.name}`") for r in failed
            ]
            table = _table(("case", "expected", "got", "see", "name"), rows)
            sections.append(f"### {str(basis).capitalize()} ({len(failed)})\n\n{table}")
    return "\n\n".join(["## Failures", *sections]) if sections else ""


def _skips(report: Report) -> str:
    rows = [(reason, str(len(results))) for reason, results in report.skips().items()]
    return "## Skipped\n\n" + _table(("reason", "cases"), rows) if rows else ""


def _area(title: str, results: Sequence[Result]) -> str:
    rows = [
        (r.verdict.upper(), r.case.title, str(r.case.basis), f"`{r.case.name}`") for r in results
    ]
    return f"### {title[0].upper()}{title[1:]}\n\n" + _table(("", "case", "basis", "name"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
