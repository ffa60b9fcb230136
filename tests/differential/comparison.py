"""The same requests to Triton and to Stellwerk: how often they agree, which differences are known,
and all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stellwerk.conformance import Subject
from tests.differential.exceptions import EXCEPTIONS, exception
from tests.differential.outcome import Kind, Outcome, equal, outcome
from tests.differential.requests import Request


@dataclass
class Comparison:
    """What came of the requests so far."""

    agreed: Counter[Kind] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[Request, Outcome, Outcome]] = field(default_factory=list)

    def add(self, request: Request, triton: Outcome, ours: Outcome) -> None:
        """Files one pair of outcomes."""
        if equal(triton, ours):
            self.agreed[ours.kind] += 1
        elif known := exception(request, triton, ours):
            self.explained[known.reason] += 1
        else:
            self.unexplained.append((request, triton, ours))

    def markdown(self, seed: int) -> str:
        """The page."""
        total = self.agreed.total() + self.explained.total() + len(self.unexplained)
        lines = [
            "# The same requests to Triton and to Stellwerk",
            "",
            (
                f"{total} requests from seed {seed}, valid and damaged ones, over REST (JSON and"
                " binary) and gRPC (raw and typed). Both must take or refuse a request alike and"
                " give equal outputs."
            ),
            "",
            "| | requests |",
            "| --- | --- |",
            *(f"| both: {kind} | {self.agreed[kind]} |" for kind in Kind if self.agreed[kind]),
            *(
                f"| differ as known: {known.reason} | {self.explained[known.reason]} |"
                for known in EXCEPTIONS
            ),
            f"| **differ otherwise** | {len(self.unexplained)} |",
        ]
        for request, triton, ours in self.unexplained:
            lines += ["", f"- `{request}`", f"  - Triton: {triton}", f"  - Stellwerk: {ours}"]
        return "\n".join(lines) + "\n"


def compare(
    triton: Subject, ours: Subject, requests: Iterable[Request], revive: Callable[[Subject], bool]
) -> Comparison:
    """Sends each request to both; `revive` starts Triton anew when a request has ended it."""
    found = Comparison()
    for request in requests:
        theirs, mine = outcome(triton, request), outcome(ours, request)
        if theirs.kind in (Kind.BROKEN, Kind.SERVER_ERROR) and not triton.serves():
            revive(triton)
        found.add(request, theirs, mine)
    return found
