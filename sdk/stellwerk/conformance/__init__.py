"""A conformance suite for servers of the Open Inference Protocol, over REST and gRPC.

`check(Options("http://host:8000", "host:8001"))` gives a Report; `stellwerk conformance` is the
same as a command. Each case is a sentence, a function, and a basis: specified by the protocol's
text, a convention of its clients, or our sensible reading where the text is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stellwerk.conformance.cases import all_cases
from stellwerk.conformance.reporting.report import Report
from stellwerk.conformance.run import Result, Revive, Verdict, chosen, run
from stellwerk.conformance.server.probes import PROBES
from stellwerk.conformance.server.rest import Rest
from stellwerk.conformance.server.rpc import Rpc
from stellwerk.conformance.server.subject import Subject, Unreachable


@dataclass(frozen=True, slots=True)
class Options:
    """The server and what to try on it; `names` maps keys of models to the server's names for
    them.
    """

    url: str | None
    grpc: str | None = None
    token: str | None = field(default=None, repr=False)
    names: dict[str, str] = field(default_factory=dict)
    only: str = ""
    extensions: bool = True
    # Seconds that one call may take.
    timeout: float = 20.0
    # Seconds after which a server that does not serve any more is held to be gone.
    patience: float = 5.0


def connect(options: Options) -> Subject:
    """The server under test. Raises Unreachable if an address that was given does not answer."""
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
    """Tries all cases that are asked for. `progress` hears how many are done, of how many, and
    which was last.
    """
    subject = connect(options)
    cases = chosen(all_cases(), options.only)
    results: list[Result] = []
    for result in run(subject, cases, revive):
        results.append(result)
        if progress is not None:
            progress(len(results), len(cases), result.case.name)
    about = {
        "server": " ".join(
            str(subject.metadata.get(key, "")) for key in ("name", "version")
        ).strip()
        or "unknown",
        "extensions": ", ".join(sorted(subject.advertised)) or "none advertised",
    }
    subject.close()
    return Report(about, results)


__all__ = ["Options", "Report", "Result", "Subject", "Unreachable", "Verdict", "check", "connect"]
