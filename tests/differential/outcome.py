"""What a server made of a request: outputs, or whose fault it says that it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stellwerk.conformance import Subject
from stellwerk.conformance.expect import Mismatch
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rpc import Refusal, outputs_of
from stellwerk.conformance.server.subject import Transport
from stellwerk.conformance.values import Tensor, same
from tests.differential.requests import Request

# Codes that say that the caller erred.
_CLIENT = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED")


class Kind(StrEnum):
    """The class of an outcome."""

    OK = "ok"
    CLIENT_ERROR = "client error"
    SERVER_ERROR = "server error"
    # An answer that the protocol does not know, or none.
    BROKEN = "broken answer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`text` is the error as the server told it."""

    kind: Kind
    text: str = ""
    outputs: tuple[Tensor, ...] = ()

    def __str__(self) -> str:
        outputs = [(tensor.name, tensor.shape, list(tensor.items)[:8]) for tensor in self.outputs]
        return f"{self.kind}: {self.text or outputs}"[:400]


def equal(one: Outcome, other: Outcome) -> bool:
    """Whether both are of one kind and, where they are answers, hold the same outputs."""
    return one.kind is other.kind and _equal(one.outputs, other.outputs)


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """In any order: that of the outputs is the conformance suite's business."""
    first, second = ({tensor.name: tensor for tensor in tensors} for tensors in (one, other))
    return first.keys() == second.keys() and all(
        (a.datatype, tuple(a.shape)) == (b.datatype, tuple(b.shape))
        and same(a.datatype, a.items, b.items)
        for a, b in ((first[name], second[name]) for name in first)
    )


def outcome(subject: Subject, request: Request) -> Outcome:
    """Sends the request."""
    try:
        return (
            _rest(subject, request)
            if request.transport is Transport.REST
            else _grpc(subject, request)
        )
    except Mismatch as exc:
        return Outcome(Kind.BROKEN, str(exc))


def _rest(subject: Subject, request: Request) -> Outcome:
    reply = subject.http.post(request.path, request.body, request.headers)
    if reply.status >= 400:
        return Outcome(
            Kind.CLIENT_ERROR if reply.status < 500 else Kind.SERVER_ERROR, reply.brief()
        )
    return Outcome(Kind.OK, outputs=tuple(binary.outputs_of(reply).values()))


def _grpc(subject: Subject, request: Request) -> Outcome:
    answer = subject.grpc.outcome("ModelInfer", request.message)
    if not isinstance(answer, Refusal):
        return Outcome(Kind.OK, outputs=tuple(outputs_of(answer).values()))
    return Outcome(
        Kind.CLIENT_ERROR if answer.code.name in _CLIENT else Kind.SERVER_ERROR, answer.brief()
    )
