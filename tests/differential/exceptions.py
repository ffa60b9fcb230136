"""Where Stellwerk and Triton 2.51 differ, and why ours is right or no harm is done. Nothing else
may differ.

Each has its row in the behaviour matrix of the protocol's notes, or says where it was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stellwerk.conformance.server.subject import Transport
from tests.differential.outcome import Kind, Outcome
from tests.differential.requests import Request

Applies = Callable[[Request, Outcome, Outcome], bool]


@dataclass(frozen=True, slots=True)
class Known:
    """`applies` looks at a request, what Triton made of it, and what we made of it."""

    reason: str
    applies: Applies


def _kinds(theirs: Kind, ours: Kind) -> Callable[[Outcome, Outcome], bool]:
    return lambda triton, stellwerk: (triton.kind, stellwerk.kind) == (theirs, ours)


# How Triton says that it could not read JSON.
_UNREAD = ("Unable to parse", "failed to parse", "failed to get request params")
_blames_itself = _kinds(Kind.SERVER_ERROR, Kind.CLIENT_ERROR)
_takes_it = _kinds(Kind.OK, Kind.CLIENT_ERROR)

EXCEPTIONS: tuple[Known, ...] = (
    Known(
        "Triton answers 500 to JSON that it cannot parse or whose members are wrong: the caller"
        " erred, so ours is 400",
        lambda request, triton, ours: (
            request.transport is Transport.REST
            and bool(request.labels)
            and any(phrase in triton.text for phrase in _UNREAD)
            and _blames_itself(triton, ours)
        ),
    ),
    Known(
        "Triton turns an integer beyond its datatype into another number; ours refuses it",
        lambda request, triton, ours: "overflow" in request.labels and _takes_it(triton, ours),
    ),
    Known(
        "Triton ignores a raw entry too many; ours refuses it",
        lambda request, triton, ours: "raw extra" in request.labels and _takes_it(triton, ours),
    ),
    Known(
        "Triton refuses a typed tensor that holds nothing, as if it were missing; ours takes it, as"
        " Triton does raw",
        lambda request, triton, ours: (
            request.transport is Transport.GRPC
            and "unable to find data for input tensor" in triton.text
            and ours.kind is Kind.OK
            and all(not tensor.items for tensor in ours.outputs)
        ),
    ),
    Known(
        "Triton does not look at the data of a JSON tensor that holds nothing; ours refuses data"
        " that is no list",
        lambda request, triton, ours: "data no list" in request.labels and _takes_it(triton, ours),
    ),
)


def exception(request: Request, triton: Outcome, ours: Outcome) -> Known | None:
    """The exception that explains the difference; None if there is none."""
    return next((known for known in EXCEPTIONS if known.applies(request, triton, ours)), None)
