"""Calls a streaming method for one request: each answer leaves as soon as the model gives it, then
a last reply without outputs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.runtime.execution.batch_call import (
    BatchOutcome,
    BatchResult,
    model_error,
    stack_inputs,
)
from services.runtime.requests.output_columns import OutputColumn, output_columns
from services.runtime.requests.request import Request

# Answers of one request that may be on their way to the broker; at this number the model pauses,
# so that a slow caller does not fill the runtime's memory.
_UNSENT = 32
# Seconds between two looks at whether the caller of a paused model is still there.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """One of several answers, and the nanoseconds it took."""

    columns: Sequence[OutputColumn]
    compute_ns: int
    output_ns: int


# Receives the number of replies that left, and whether the broker took them; it does not take
# replies that no one waits for.
Sent = Callable[[int, bool], None]
# Sends one of several answers. Called on the event loop.
Emit = Callable[[Request, StreamedAnswer, Sent], None]


class StreamCall:
    """A call of a streaming method for one request."""

    def __init__(self, request: Request, started: float, emit: Emit) -> None:
        """Takes the start of the call as a time.monotonic()."""
        self._request = request
        self._started = started
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_UNSENT)
        self._wanted = True

    def run(self) -> BatchOutcome:
        """Iterates the method and returns the outcome. For a worker thread; never raises."""
        requests = [self._request]
        result = BatchResult(requests, rows=self._request.rows)
        try:
            self._iterate(self._request, result)
        except BaseException as exc:
            # As in a batch call: a model must not end its worker thread.
            result.error = model_error(exc)
            result.cause = exc
        return BatchOutcome(requests, self._started, [result])

    def _iterate(self, request: Request, result: BatchResult) -> None:
        layout = request.layout
        model = request.work.model
        assert model is not None
        begun = time.perf_counter_ns()
        inputs = stack_inputs(layout, [request])
        called = time.perf_counter_ns()
        result.input_ns = called - begun
        answers: Any = iter(model.stream(layout.method.name, inputs))
        try:
            for answer in answers:
                given = time.perf_counter_ns()
                columns = output_columns(answer, layout.outputs, 0, sliceable=False)
                streamed = StreamedAnswer(columns, given - called, time.perf_counter_ns() - given)
                result.compute_ns += streamed.compute_ns
                result.output_ns += streamed.output_ns
                if not self._has_room(request):
                    return
                self._loop.call_soon_threadsafe(self._emit, request, streamed, self._sent)
                called = time.perf_counter_ns()
        finally:
            # A generator that is left early must free what it holds, in the thread that ran it.
            if hasattr(answers, "close"):
                answers.close()

    def _has_room(self, request: Request) -> bool:
        """Waits until another answer may be sent. Returns False once no one wants one."""
        while request.open and self._wanted:
            if self._room.acquire(timeout=_LOOK_SECONDS):
                return request.open and self._wanted
        return False

    def _sent(self, replies: int, taken: bool) -> None:
        self._wanted = self._wanted and taken
        self._room.release()
