"""Joining calls into one and cutting the answer back, row by row. Pure; it never guesses that a model works by rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.runtime.formats.port import Array, Arrays, Signature
from services.wire.errors import InvalidInput, ModelFailed

# What scikit-learn's own methods promise, declared or not: one row of answer for each row of input.
ROWWISE_METHODS = frozenset({"predict", "predict_proba", "predict_log_proba", "decision_function"})
ESTIMATOR_FORMATS = frozenset({"skops", "pickle"})
# The format option by which a model's owner says whether its rows may be joined with others', and its values.
OPTION, ROWS, OFF = "batching", "rows", "off"


@dataclass(frozen=True, slots=True)
class Request:
    """One caller's call of a model."""

    id: str
    method: str
    inputs: Arrays
    outputs: tuple[str, ...] = ()
    # By time.monotonic.
    received: float = 0.0
    deadline: float = float("inf")
    context: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> int | None:
        """The common first dimension of the inputs; None if they have none in common."""
        counts = {array.shape[0] if array.ndim else -1 for array in self.inputs.values()}
        count = counts.pop() if len(counts) == 1 else -1
        return count if count >= 0 else None


def works_by_rows(model_format: str, method: str, signature: Signature, mode: str = "") -> bool:
    """Whether the method's answer has one row for each row of its input and each depends on its own row alone.

    scikit-learn's estimators promise that. A graph does not: its first dimension may be a sequence, so a model of
    another format is taken at its owner's word, the format option batching="rows"; "off" forbids it for all.
    """
    if method == "score" or mode == OFF:
        return False
    if signature.inputs and signature.outputs:
        specs = [*signature.inputs, *signature.outputs]
        if not all(len(spec.shape) > 0 and spec.shape[0] == -1 for spec in specs):
            return False
        return mode == ROWS or model_format in ESTIMATOR_FORMATS
    return mode == ROWS or (model_format in ESTIMATOR_FORMATS and method in ROWWISE_METHODS)


def batch_key(request: Request, rowwise: bool) -> Hashable | None:
    """Requests with equal keys may be joined; None for one that must stay alone."""
    if not rowwise or not request.rows():
        return None
    return request.method, tuple((name, array.dtype.str, array.shape[1:]) for name, array in request.inputs.items())


def join(requests: Sequence[Request]) -> Arrays:
    """The inputs of requests with equal keys as one call's inputs."""
    if len(requests) == 1:
        return requests[0].inputs
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in requests[0].inputs}


def split(answer: Arrays, counts: Sequence[int]) -> list[dict[str, Array]]:
    """The answer cut into parts of these row counts. ModelFailed if it has another number of rows."""
    check_rows(answer, sum(counts))
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in answer.items()}
        for count, end in zip(counts, ends, strict=True)
    ]


def check_rows(answer: Arrays, rows: int) -> None:
    """Raises ModelFailed unless every output has as many rows as the input had."""
    for name, array in answer.items():
        got = array.shape[0] if array.ndim else None
        if got != rows:
            raise ModelFailed(
                f"the model answered {got} rows for {rows} in output '{name}'", tensor=name, expected=rows, got=got
            )


def select(answer: Arrays, wanted: Sequence[str]) -> dict[str, Array]:
    """The wanted outputs in their order, all for none named. InvalidInput for one that the model does not give."""
    if not wanted:
        return dict(answer)
    for name in wanted:
        if name not in answer:
            raise InvalidInput(f"the model has no output '{name[:64]}'; it gives {', '.join(answer)}", tensor=name[:64])
    return {name: answer[name] for name in wanted}
