"""A run's results as numbers, as JSON and as text for a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stellwerk.conformance.case import Area, Basis
from stellwerk.conformance.run import Result, Verdict

_MARKS = {Verdict.PASS: "PASS", Verdict.FAIL: "FAIL", Verdict.SKIP: "SKIP"}


@dataclass(frozen=True, slots=True)
class Report:
    """What was tested, and what came of it. `about` are facts such as the server's name, in
    order.
    """

    about: dict[str, str]
    results: Sequence[Result]

    @property
    def failed(self) -> bool:
        """Whether any case failed."""
        return any(result.verdict is Verdict.FAIL for result in self.results)

    def counts(self, area: Area | None = None, basis: Basis | None = None) -> Counter[Verdict]:
        """How many cases of this area and basis came out how."""
        return Counter(
            result.verdict
            for result in self.results
            if area in (None, result.case.area) and basis in (None, result.case.basis)
        )

    def areas(self) -> dict[Area, list[Result]]:
        """The results of each area that has any, in the order of the areas."""
        found = {
            area: [result for result in self.results if result.case.area is area] for area in Area
        }
        return {area: results for area, results in found.items() if results}

    def skips(self) -> dict[str, list[Result]]:
        """The skipped cases by their reason."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.verdict is Verdict.SKIP:
                found.setdefault(result.reason, []).append(result)
        return found


def sentence(counts: Counter[Verdict]) -> str:
    """Such as "12 passed, 3 failed, 1 skipped"."""
    return (
        f"{counts[Verdict.PASS]} passed, {counts[Verdict.FAIL]} failed, {counts[Verdict.SKIP]}"
        " skipped"
    )


def as_json(report: Report) -> str:
    """The whole report as one JSON document."""
    summary = {str(basis): _numbers(report.counts(basis=basis)) for basis in Basis}
    results = [_entry(result) for result in report.results]
    whole = {
        "about": report.about,
        "summary": {"all": _numbers(report.counts()), **summary},
        "results": results,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _numbers(counts: Counter[Verdict]) -> dict[str, int]:
    return {str(verdict): counts[verdict] for verdict in Verdict}


def _entry(result: Result) -> dict[str, Any]:
    case = result.case
    told = {"expected": result.expected, "got": result.got, "reason": result.reason}
    return {
        "case": case.name,
        "area": str(case.area),
        "title": case.title,
        "basis": str(case.basis),
        "place": case.place,
        "transport": str(case.transport),
        "extension": case.extension,
        "verdict": str(result.verdict),
        "seconds": round(result.seconds, 4),
        **{key: text for key, text in told.items() if text},
    }


def as_text(report: Report) -> str:
    """Tables by area for a terminal: each case on a line, failures with what was expected and what
    came.
    """
    lines = [f"{name}: {value}" for name, value in report.about.items()]
    for area, results in report.areas().items():
        lines += ["", f"{area} ({sentence(report.counts(area))})"]
        lines += [line for result in results for line in _lines(result)]
    lines += ["", *(f"{basis}: {sentence(report.counts(basis=basis))}" for basis in Basis)]
    return "\n".join([*lines, f"in all: {sentence(report.counts())}"]) + "\n"


def _lines(result: Result) -> list[str]:
    case = result.case
    lines = [f"  {_MARKS[result.verdict]}  {case.title}  [{case.basis}] {case.name}"]
    if result.verdict is Verdict.FAIL:
        lines += [f"        expected  {result.expected}", f"        got       {result.got}"]
        lines += [f"        see       {case.place}"] if case.place else []
    if result.verdict is Verdict.SKIP:
        lines.append(f"        because   {result.reason}")
    return lines
