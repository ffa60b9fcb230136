"""Calls a model once for a batch of requests: stacks inputs, calls, checks and serialises outputs.

A batch that fails is halved until the failing item, or member of a group, is alone, so that none
fails because of another. A method with unproven batchability is probed before its first batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.runtime.formats.port import Array, Arrays, LoadedModel
from services.runtime.requests.batchability import (
    Batchability,
    differing_row,
    rows_are_independent,
)
from services.runtime.requests.members import apart, halves, still_open
from services.runtime.requests.output_columns import OutputColumn, output_columns
from services.runtime.requests.request import InputField, Request, RequestLayout
from stellwerk.wire import tensors
from stellwerk.wire.errors import Internal, InvalidInput, ModelFailed, Overloaded, ServiceError

# Characters of a model's own message that a caller gets to see.
_MESSAGE_LENGTH = 200


@dataclass(slots=True)
class BatchResult:
    """The result of one call for its requests, in the order of their rows: columns or an error."""

    requests: Sequence[Request]
    columns: Sequence[OutputColumn] = ()
    error: ServiceError | None = None
    # The exception that the model raised, for the log.
    cause: BaseException | None = None
    # Rows of the whole call; 0 if the inputs have no common first dimension.
    rows: int = 0
    input_ns: int = 0
    compute_ns: int = 0
    output_ns: int = 0
    # Items and members; where there is one alone, the columns are not to be sliced.
    count: int = field(init=False)
    alone: bool = field(init=False)

    def __post_init__(self) -> None:
        self.count = sum([len(request.members) or 1 for request in self.requests])
        self.alone = self.count == 1


@dataclass(slots=True)
class BatchOutcome:
    """The results of all calls that a batch of requests took."""

    requests: Sequence[Request]
    # When the batch started, as time.monotonic().
    started: float = 0.0
    results: list[BatchResult] = field(default_factory=list)
    # Whether a probe has just settled that the method is never batched.
    batching_refused: bool = False
    # Whether one call without an error answered the batch, so that its time counts for its size.
    one_call: bool = False


def run_batch(requests: Sequence[Request], started: float) -> BatchOutcome:
    """Calls the leased model for requests of one layout. For a worker thread; never raises."""
    outcome = BatchOutcome(requests, started)
    try:
        model = requests[0].work.model
        assert model is not None
        execute(model, outcome)
    except BaseException as exc:
        error = Internal("internal error in the runtime")
        outcome.results = [BatchResult([request], error=error, cause=exc) for request in requests]
    return outcome


def execute(model: LoadedModel, outcome: BatchOutcome) -> None:
    """Calls the model for the outcome's requests, once if possible, and adds the results.

    The results hold every request that is still open. One request or member never fails another:
    a failing batch is retried in halves.
    """
    requests = outcome.requests
    method = requests[0].layout.method
    if method.batchability is not Batchability.ALWAYS:
        requests = apart(requests)
    if len(requests) > 1 and method.batchability is Batchability.PROBE:
        outcome.batching_refused = not _probe(model, requests)
    if len(requests) > 1 and method.batchability is not Batchability.ALWAYS:
        for request in requests:
            _call(model, [request], outcome.results)
        return
    _call(model, requests, outcome.results)
    outcome.one_call = len(outcome.results) == 1 and outcome.results[0].error is None


def _call(model: LoadedModel, asked: Sequence[Request], results: list[BatchResult]) -> None:
    requests = still_open(asked)
    if not requests:
        return
    layout = requests[0].layout
    result = BatchResult(requests)
    begun = called = time.perf_counter_ns()
    try:
        inputs = stack_inputs(layout, requests)
        called = time.perf_counter_ns()
        answer = model.call(layout.method.name, inputs)
        done = time.perf_counter_ns()
        result.rows = sum([request.rows for request in requests])
        result.columns, result.error = _columns(result, answer)
        result.input_ns = called - begun
        result.compute_ns = done - called
        result.output_ns = time.perf_counter_ns() - done
    except BaseException as exc:
        # SystemExit and panics of native libraries too: a model must not end its worker thread.
        if not result.alone:
            for half in halves(requests):
                _call(model, half, results)
            return
        result.rows = requests[0].rows
        result.error = model_error(exc)
        result.cause = exc
        result.input_ns = called - begun
        result.compute_ns = time.perf_counter_ns() - called
    results.append(result)


def stack_inputs(layout: RequestLayout, requests: Sequence[Request]) -> dict[str, Array]:
    """Returns the inputs of requests of one layout by name, their rows end to end in this order.

    Takes several requests only if the layout is by rows.
    """
    if not layout.by_rows:
        (request,) = requests
        return {
            field.name: np.asarray(part)
            for field, part in zip(layout.fields, request.parts, strict=True)
        }
    rows = sum([request.rows for request in requests])
    return {
        field.name: _stack(field, [request.parts[index] for request in requests], rows)
        for index, field in enumerate(layout.fields)
    }


def _stack(field: InputField, parts: Sequence[Any], rows: int) -> Array:
    if not field.row_bytes:
        arrays = [np.asarray(part) for part in parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    data = b"".join(parts) if len(parts) > 1 else parts[0]
    shape = (rows, *field.trailing)
    if field.dtype is None:
        return tensors.numbers(field.datatype, data, shape)
    return np.frombuffer(data, dtype=field.dtype).reshape(shape)


def _columns(
    result: BatchResult, answer: Arrays
) -> tuple[Sequence[OutputColumn], ServiceError | None]:
    layout = result.requests[0].layout
    alone = result.alone
    checked = result.rows if not alone or layout.method.rows_promised else 0
    try:
        return output_columns(answer, layout.outputs, checked, sliceable=not alone), None
    except InvalidInput as exc:
        return (), exc  # requests of one layout name the same outputs, so halving would not help


def _probe(model: LoadedModel, requests: Sequence[Request]) -> bool:
    """Calls the model to settle whether its method may be batched; returns False if it may not."""
    first = requests[0]
    method = first.layout.method

    def call(inputs: Arrays) -> Arrays:
        return model.call(method.name, inputs)

    sample = stack_inputs(first.layout, [first])
    try:
        alone = call(sample)
    except BaseException:
        return True  # the request itself is faulty, which says nothing about batches
    other = next((request for request in requests if _differ(request, first)), None)
    rest = stack_inputs(first.layout, [other]) if other is not None else differing_row(sample)
    try:
        method.settle(independent=rows_are_independent(call, sample, alone, rest))
    except BaseException:
        method.probe_failed()
    return method.batchability is not Batchability.NEVER


def _differ(one: Request, other: Request) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(one.parts, other.parts, strict=True))


def model_error(exc: BaseException) -> ServiceError:
    """Returns the caller's error for what a model raised: its class and first line, no traceback.

    A ServiceError stays as it is; MemoryError becomes Overloaded, everything else ModelFailed.
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
