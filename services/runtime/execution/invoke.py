"""One model call in a worker thread: join, call, check, make columns; a failure in company is
narrowed down to its culprit, and company that a model was not seen to bear is tried out first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.runtime.formats.port import Array, Arrays, LoadedModel
from services.runtime.requests.batchability import Joining, bears_company, unlike
from services.runtime.requests.request import Request
from services.runtime.requests.row_slices import Column, check_rows, column, join, select, whole
from stellwerk.wire.errors import InvalidInput, ModelFailed, Overloaded, ServiceError

_MESSAGE_LENGTH = 200


@dataclass(slots=True)
class Piece:
    """Requests that one call answered, in the order of their rows: columns for all, or an error for
    all.
    """

    requests: Sequence[Request]
    columns: Sequence[Column] = ()
    error: ServiceError | None = None
    # What the model raised, for the log.
    cause: BaseException | None = None
    # Rows of the whole call; 0 if the inputs have none in common.
    rows: int = 0
    input_ns: int = 0
    compute_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of requests that were called together."""

    pieces: list[Piece] = field(default_factory=list)
    # A probe has just shown that the method's calls cannot be joined, or not shown that they can.
    refused: bool = False
    # Called once, for all: its time says what so many rows take.
    measured: bool = False


def execute(model: LoadedModel, requests: Sequence[Request]) -> Outcome:
    """Calls the model for requests of one form, once if it can be; the pieces hold every request
    that is still open.

    If that fails and there were several, each half is tried by itself: one bad request never fails
    its neighbours.
    """
    outcome = Outcome()
    method = requests[0].form.method
    if len(requests) > 1 and method.joining is Joining.PROBE:
        outcome.refused = not _try_out(model, requests)
    if len(requests) > 1 and method.joining is not Joining.ALWAYS:
        for request in requests:
            _call(model, [request], outcome.pieces)
        return outcome
    _call(model, requests, outcome.pieces)
    outcome.measured = len(outcome.pieces) == 1 and outcome.pieces[0].error is None
    return outcome


def _call(model: LoadedModel, asked: Sequence[Request], pieces: list[Piece]) -> None:
    requests = [request for request in asked if request.open]
    if not requests:
        return
    form, piece = requests[0].form, Piece(requests)
    begun = called = time.perf_counter_ns()
    try:
        inputs = join(form, requests)
        called = time.perf_counter_ns()
        answer = model.call(form.method.name, inputs)
        done = time.perf_counter_ns()
        piece.rows = sum([request.rows for request in requests])
        piece.columns, piece.error = _columns(requests, answer, piece.rows)
        piece.input_ns, piece.compute_ns = called - begun, done - called
        piece.output_ns = time.perf_counter_ns() - done
    except (
        BaseException
    ) as exc:  # SystemExit and panics of native libraries too: it is the model's thread, not ours
        if len(requests) > 1:
            middle = len(requests) // 2
            _call(model, requests[:middle], pieces)
            _call(model, requests[middle:], pieces)
            return
        piece.rows = requests[0].rows
        piece.error, piece.cause = explain(exc), exc
        piece.input_ns, piece.compute_ns = called - begun, time.perf_counter_ns() - called
    pieces.append(piece)


def _columns(
    requests: Sequence[Request], answer: Arrays, rows: int
) -> tuple[Sequence[Column], ServiceError | None]:
    form = requests[0].form
    alone = len(requests) == 1
    if not alone or (form.method.promised and rows):
        check_rows(answer, rows)
    try:
        chosen = select(answer, form.outputs)
    except InvalidInput as exc:
        return (), exc  # all of them asked for the same
    return encode(chosen, whole if alone else column), None


def encode(answer: Arrays, make: Callable[[str, Array], Column] = whole) -> list[Column]:
    """The outputs as columns. Raises ModelFailed for one that cannot travel."""
    try:
        return [make(name, np.asarray(array)) for name, array in answer.items()]
    except InvalidInput as exc:
        raise ModelFailed(
            "the model's answer holds values that no tensor can carry; let it answer numbers or"
            " text"
        ) from exc


def _try_out(model: LoadedModel, requests: Sequence[Request]) -> bool:
    """Settles whether the method's calls may be joined, if these requests can show it. False: they
    never may.
    """
    first, method = requests[0], requests[0].form.method

    def call(inputs: Arrays) -> Arrays:
        return model.call(method.name, inputs)

    sample = join(first.form, [first])
    try:
        alone = call(sample)
    except BaseException:
        return True  # the request's own fault says nothing about company
    other = next((request for request in requests if _differ(request, first)), None)
    company = join(first.form, [other]) if other is not None else unlike(sample)
    try:
        method.shown(bears_company(call, sample, alone, company))
    except BaseException:
        method.not_shown()
    return method.joining is not Joining.NEVER


def _differ(one: Request, other: Request) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(one.parts, other.parts, strict=True))


def explain(exc: BaseException) -> ServiceError:
    """The error for the caller. Of what the model raised, it carries the class and the first line,
    nothing deeper.
    """
    if isinstance(exc, ServiceError):
        return exc
    if isinstance(exc, MemoryError):
        return Overloaded(
            "the runtime has not enough memory for this call; send fewer rows or try again later"
        )
    kind = type(exc).__name__
    first = next(iter(str(exc).splitlines()), "")[:_MESSAGE_LENGTH]
    return ModelFailed(
        f"the model raised {kind}: {first}" if first else f"the model raised {kind}", exception=kind
    )
