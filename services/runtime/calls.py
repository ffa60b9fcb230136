"""One model call in a worker thread: call, check, cut back; a failure in company is narrowed down to its culprit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.batching import Request, check_rows, join, select, split
from services.runtime.formats.port import Array, LoadedModel
from services.wire.errors import InvalidInput, ModelFailed, Overloaded, ServiceError
from services.wire.tensors import from_numpy
from stellwerk.type.v1 import tensor_pb2

_MESSAGE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request: tensors, or an error; and for the log what the model raised."""

    outputs: tuple[tensor_pb2.Tensor, ...] = ()
    error: ServiceError | None = None
    cause: BaseException | None = None
    compute_ns: int = 0


def execute(model: LoadedModel, requests: Sequence[Request], rowwise: bool) -> list[Answer]:
    """Calls the model once for all requests, which have equal batch keys; one answer for each, in order.

    If that fails and there were several, each half is tried by itself: one bad request never fails its neighbours.
    """
    started = time.perf_counter_ns()
    try:
        answer = model.call(requests[0].method, join(requests))
        if len(requests) > 1:
            parts = split(answer, [request.rows() or 0 for request in requests])
        else:
            rows = requests[0].rows()
            if rowwise and rows is not None:
                check_rows(answer, rows)
            parts = [dict(answer)]
    except Exception as exc:
        if len(requests) == 1:
            return [Answer(error=_explain(exc), cause=exc, compute_ns=time.perf_counter_ns() - started)]
        middle = len(requests) // 2
        return [*execute(model, requests[:middle], rowwise), *execute(model, requests[middle:], rowwise)]
    spent = time.perf_counter_ns() - started
    return [_encode(request, part, spent) for request, part in zip(requests, parts, strict=True)]


def _encode(request: Request, part: dict[str, Array], spent: int) -> Answer:
    try:
        chosen = select(part, request.outputs)
    except InvalidInput as exc:
        return Answer(error=exc, compute_ns=spent)
    try:
        return Answer(tuple(from_numpy(name, array) for name, array in chosen.items()), compute_ns=spent)
    except InvalidInput as exc:
        error = ModelFailed("the model's answer holds values that no tensor can carry; let it answer numbers or text")
        return Answer(error=error, cause=exc, compute_ns=spent)


def _explain(exc: Exception) -> ServiceError:
    """The error for the caller. Of what the model raised, it carries the class and the first line, nothing deeper."""
    if isinstance(exc, ServiceError):
        return exc
    if isinstance(exc, MemoryError):
        return Overloaded("the runtime has not enough memory for this call; send fewer rows or try again later")
    kind = type(exc).__name__
    first = next(iter(str(exc).splitlines()), "")[:_MESSAGE_LENGTH]
    return ModelFailed(f"the model raised {kind}: {first}" if first else f"the model raised {kind}", exception=kind)
