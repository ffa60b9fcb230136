"""What a slot is given to do: one call for requests that are joined, or one method that answers
many times.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.runtime.execution.invoke import Outcome, Piece, encode, execute, explain
from services.runtime.replies.sender import Sent
from services.runtime.requests.request import Request
from services.runtime.requests.row_slices import Column, join, select
from stellwerk.wire.errors import Internal

# Answers of one request on their way to the broker; the model waits when there are more.
_UNSENT = 32
# How often a model that waits for its answers to leave looks whether anybody still wants them.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Value:
    """One of several answers, and the nanoseconds it took."""

    columns: Sequence[Column]
    compute_ns: int
    output_ns: int


# Sends one of several answers; to be called on the loop.
Emit = Callable[[Request, Value, Sent], None]


class CallJob:
    """One call of the model for requests of one form."""

    def __init__(
        self, requests: list[Request], started: float, prepare: Callable[[], None]
    ) -> None:
        self.requests, self.started = requests, started
        self.outcome = Outcome()
        self._prepare = prepare

    def run(self) -> None:
        """In a worker thread."""
        try:
            self._prepare()
            model = self.requests[0].work.model
            assert model is not None
            self.outcome = execute(model, self.requests)
        except BaseException as exc:
            error = Internal("internal error in the runtime")
            self.outcome = Outcome(
                [Piece([request], error=error, cause=exc) for request in self.requests]
            )


class StreamJob:
    """One request to a decoupled method: each value leaves as soon as it is there, then a last
    reply without one.
    """

    def __init__(
        self, request: Request, started: float, prepare: Callable[[], None], emit: Emit
    ) -> None:
        self.requests, self.started = [request], started
        self.outcome = Outcome()
        self._prepare, self._emit = prepare, emit
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_UNSENT)
        self._wanted = True

    def run(self) -> None:
        """In a worker thread."""
        piece = Piece(self.requests, rows=self.requests[0].rows)
        try:
            self._prepare()
            self._iterate(self.requests[0], piece)
        except BaseException as exc:  # as of a call: it is the model's
            piece.error, piece.cause = explain(exc), exc
        self.outcome = Outcome([piece])

    def _iterate(self, request: Request, piece: Piece) -> None:
        form, model = request.form, request.work.model
        begun = time.perf_counter_ns()
        inputs = join(form, [request])
        called = time.perf_counter_ns()
        piece.input_ns = called - begun
        answers: Any = iter(model.stream(form.method.name, inputs))  # type: ignore[union-attr]
        try:
            for answer in answers:
                given = time.perf_counter_ns()
                columns = encode(select(answer, form.outputs))
                value = Value(columns, given - called, time.perf_counter_ns() - given)
                piece.compute_ns += value.compute_ns
                piece.output_ns += value.output_ns
                if not self._has_room(request):
                    return
                self._loop.call_soon_threadsafe(self._emit, request, value, self._sent)
                called = time.perf_counter_ns()
        finally:
            if hasattr(answers, "close"):
                answers.close()  # a generator that is left early gives back what it holds

    def _has_room(self, request: Request) -> bool:
        """Waits until another answer may be on its way. False: nobody wants one any more."""
        while request.open and self._wanted:
            if self._room.acquire(timeout=_LOOK_SECONDS):
                return request.open and self._wanted
        return False

    def _sent(self, replies: int, taken: bool) -> None:
        self._wanted = self._wanted and taken
        self._room.release()
