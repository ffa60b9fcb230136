"""Tries the cases on a server, one after the other, and keeps what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from stellwerk.conformance.case import Case
from stellwerk.conformance.expect import Mismatch, NotApplicable
from stellwerk.conformance.server.subject import Subject

Revive = Callable[[Subject], bool]


class Verdict(StrEnum):
    """What came of a case."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """`expected` and `got` of a failure, `reason` of a skip."""

    case: Case
    verdict: Verdict
    seconds: float
    expected: str = ""
    got: str = ""
    reason: str = ""


def chosen(cases: Iterable[Case], pattern: str) -> list[Case]:
    """The cases whose name or area fits the pattern, in which * and ? stand for letters; hostile
    ones last.
    """
    loose = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = [
        case
        for case in cases
        if any(fnmatchcase(text, loose) for text in (case.name, str(case.area)))
    ]
    return sorted(found, key=lambda case: case.hostile)


def run(
    subject: Subject,
    cases: Sequence[Case],
    revive: Revive = lambda subject: False,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Result]:
    """The result of each case, as soon as it is there.

    After a failure the server is asked whether it still serves. If not, `revive` may start it
    again, or point the subject to another one; if it does not, the cases that are left are skipped.
    """
    culprit = ""
    for case in cases:
        if culprit:
            yield Result(
                case, Verdict.SKIP, 0.0, reason=f"the server has served nobody since {culprit}"
            )
            continue
        result = _try(subject, case, clock)
        if result.verdict is Verdict.FAIL and not subject.serves():
            result = replace(result, got=f"{result.got}; afterwards the server served nobody")
            culprit = "" if revive(subject) else case.name
        yield result


def _try(subject: Subject, case: Case, clock: Callable[[], float]) -> Result:
    begun = clock()
    try:
        subject.require(case)
        case.check(subject)
    except NotApplicable as exc:
        return Result(case, Verdict.SKIP, clock() - begun, reason=str(exc))
    except Mismatch as exc:
        return Result(case, Verdict.FAIL, clock() - begun, expected=exc.expected, got=exc.got)
    except Exception as exc:  # whatever a check stumbles over, the server has sent
        got = f"something that the check stumbles over: {type(exc).__name__}: {exc}"
        return Result(
            case,
            Verdict.FAIL,
            clock() - begun,
            expected="an answer of the protocol's form",
            got=got,
        )
    return Result(case, Verdict.PASS, clock() - begun)
