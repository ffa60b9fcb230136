"""The results of a run: as numbers, as JSON, and as text for a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stellwerk.conformance.cases.case import Area, Basis, Case


class Verdict(StrEnum):
    """The outcome of a case."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one case: `expected` and `got` of a failure, `reason` of a skip."""

    case: Case
    verdict: Verdict
    seconds: float
    expected: str = ""
    got: str = ""
    reason: str = ""


_MARKS = {Verdict.PASS: "PASS", Verdict.FAIL: "FAIL", Verdict.SKIP: "SKIP"}


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a run, with facts about the server such as its name, in order."""

    about: dict[str, str]
    results: Sequence[Result]

    @property
    def failed(self) -> bool:
        """The outcome as one bit: true if any case failed."""
        return any(result.verdict is Verdict.FAIL for result in self.results)

    def counts(self, area: Area | None = None, basis: Basis | None = None) -> Counter[Verdict]:
        """Returns the number of cases by verdict; None stands for every area or basis."""
        return Counter(
            result.verdict
            for result in self.results
            if area in (None, result.case.area) and basis in (None, result.case.basis)
        )

    def areas(self) -> dict[Area, list[Result]]:
        """Returns the results of each area that has any, in the order of the areas."""
        found = {
            area: [result for result in self.results if result.case.area is area] for area in Area
        }
        return {area: results for area, results in found.items() if results}

    def skips(self) -> dict[str, list[Result]]:
        """Returns the skipped cases by their reason."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.verdict is Verdict.SKIP:
                found.setdefault(result.reason, []).append(result)
        return found


def sentence(counts: Counter[Verdict]) -> str:
    """Returns a sentence such as "12 passed, 3 failed, 1 skipped"."""
    return (
        f"{counts[Verdict.PASS]} passed, {counts[Verdict.FAIL]} failed, {counts[Verdict.SKIP]}"
        " skipped"
    )


def as_json(report: Report) -> str:
    """Returns the whole report as one JSON document."""
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
    """Returns the report for a terminal, area by area: each case on a line, a failure with the
    expected and the actual behaviour.
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
