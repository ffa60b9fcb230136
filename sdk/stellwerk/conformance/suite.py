"""Runs the suite: tries the cases on a server, one after the other, and reports the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from stellwerk.conformance.cases.case import Case
from stellwerk.conformance.cases.catalogue import all_cases
from stellwerk.conformance.expect import Mismatch, NotApplicable
from stellwerk.conformance.reporting.report import Report, Result, Verdict
from stellwerk.conformance.server.probes import PROBES
from stellwerk.conformance.server.rest import Rest
from stellwerk.conformance.server.rpc import Rpc
from stellwerk.conformance.server.subject import Subject, Unreachable

# Starts a server that serves no more, or points the subject to another; returns whether it serves.
Revive = Callable[[Subject], bool]


@dataclass(frozen=True, slots=True)
class Options:
    """The server and the cases to try on it."""

    # The REST address, such as "http://host:8000"; None for gRPC alone.
    url: str | None
    # The gRPC address, "host:port" or "grpcs://host:port"; None for REST alone.
    grpc: str | None = None
    token: str | None = field(default=None, repr=False)
    # Keys of conformance models → the server's names for them, where they differ from ours.
    names: dict[str, str] = field(default_factory=dict)
    # A part of the names or areas of the cases to try, or a pattern with * and ?; "" for all.
    only: str = ""
    extensions: bool = True
    # Seconds that one call may take.
    timeout: float = 20.0
    # Seconds after which a server that does not serve any more is taken for gone.
    patience: float = 5.0


def connect(options: Options) -> Subject:
    """Returns the server under test. Raises Unreachable if a given address does not answer."""
    rest = Rest(options.url, options.token, options.timeout) if options.url else None
    rpc = Rpc(options.grpc, options.token, options.timeout) if options.grpc else None
    for address, way in ((options.url, rest), (options.grpc, rpc)):
        why = way.reachable() if way is not None else ""
        if why:
            raise Unreachable(f"{address} cannot be reached: {why}")
    return Subject(rest, rpc, dict(options.names), options.extensions, PROBES, options.patience)


def check(
    options: Options,
    progress: Callable[[int, int, str], None] | None = None,
    revive: Revive = lambda subject: False,
) -> Report:
    """Tries the chosen cases and returns their results.

    `progress` is called after each case with the number of cases done, the number of all, and the
    case's name. Raises Unreachable if a given address does not answer.
    """
    subject = connect(options)
    cases = chosen(all_cases(), options.only)
    results: list[Result] = []
    for result in run(subject, cases, revive):
        results.append(result)
        if progress is not None:
            progress(len(results), len(cases), result.case.name)
    name = " ".join(str(subject.metadata.get(key, "")) for key in ("name", "version")).strip()
    about = {
        "server": name or "unknown",
        "extensions": ", ".join(sorted(subject.advertised)) or "none advertised",
    }
    subject.close()
    return Report(about, results)


def chosen(cases: Iterable[Case], pattern: str) -> list[Case]:
    """Returns the cases whose name or area has the pattern in it, or fits it if it holds * or ?;
    hostile cases come last.
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
    """Yields the result of each case, as soon as it is there.

    After a failure the server is asked whether it still serves. If it does not and `revive` does
    not help, the cases that are left are skipped.
    """
    # The case after which the server stopped serving, "" while it serves.
    crashed_by = ""
    for case in cases:
        if crashed_by:
            yield Result(
                case, Verdict.SKIP, 0.0, reason=f"the server has served nobody since {crashed_by}"
            )
            continue
        result = _try(subject, case, clock)
        if result.verdict is Verdict.FAIL and not subject.serves():
            result = replace(result, got=f"{result.got}; afterwards the server served nobody")
            crashed_by = "" if revive(subject) else case.name
        yield result


def _try(subject: Subject, case: Case, clock: Callable[[], float]) -> Result:
    begun = clock()
    try:
        subject.require(case.transport, case.extension)
        case.check(subject)
    except NotApplicable as exc:
        return Result(case, Verdict.SKIP, clock() - begun, reason=str(exc))
    except Mismatch as exc:
        return Result(case, Verdict.FAIL, clock() - begun, expected=exc.expected, got=exc.got)
    except Exception as exc:
        # A check stumbles only over what the server has sent.
        return Result(
            case,
            Verdict.FAIL,
            clock() - begun,
            expected="an answer of the protocol's form",
            got=f"something that the check stumbles over: {type(exc).__name__}: {exc}",
        )
    return Result(case, Verdict.PASS, clock() - begun)
