"""Starts model calls in a bounded number of slots. Requests of one version that wait when a slot is
free share a call if they may; a lone request waits for others only if the model's owner wants that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from services.runtime.batching.batch_size import BatchSizeTuner
from services.runtime.batching.queue import RequestQueue
from services.runtime.execution.batch_call import BatchOutcome, run_batch
from services.runtime.execution.stream_call import Emit, StreamCall
from services.runtime.execution.workers import NativeThreadLimit, WorkerThreads
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.request import Request


@dataclass(slots=True, eq=False)
class ModelQueue:
    """The waiting requests of one version, and what surrounds its calls."""

    # The version's resource name.
    name: str
    policy: BatchPolicy
    # Receives the outcome of each call, and each streamed answer before that.
    answered: Callable[[BatchOutcome], None]
    emit: Emit
    # Whether the version's owner lets responses be cached.
    caches_responses: bool = False
    # Lease the model for the time of a call, even if its callers leave meanwhile.
    hold: Callable[[], object] = lambda: None
    let_go: Callable[[], object] = lambda: None
    waiting: RequestQueue = field(init=False)
    tuner: BatchSizeTuner | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.waiting = RequestQueue(self.policy)
        if self.policy.objective:
            self.tuner = BatchSizeTuner(self.policy.objective, self.policy.max_rows)

    @property
    def limit(self) -> int:
        """Rows that the next call may have."""
        return self.tuner.limit if self.tuner is not None else self.policy.max_rows


class Scheduler:
    """Shares the slots between model queues, which take turns."""

    def __init__(
        self,
        slots: int,
        *,
        max_batch_rows: int,
        threads_per_call: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.max_batch_rows = max_batch_rows
        # Calls that run now.
        self.running = 0
        self._idle = asyncio.Event()
        self._clock = clock
        self._threads = NativeThreadLimit(threads_per_call)
        self._workers = WorkerThreads(self._threads)
        # Queues with waiting requests; the next one to serve is first.
        self._queues: OrderedDict[int, ModelQueue] = OrderedDict()
        self._pumping = False
        self._alarm: asyncio.TimerHandle | None = None

    def models_changed(self) -> None:
        """Limits the threads of libraries that a load may have brought. Call it in the loading
        thread after each load.
        """
        self._threads.refresh()

    def submit(self, queue: ModelQueue, requests: Sequence[Request]) -> None:
        """Queues requests; the queue's `answered` gets each of them with its result."""
        for request in requests:
            queue.waiting.add(request)
        self._queues.setdefault(id(queue), queue)
        if not self._pumping and self.running < self.slots:
            # On the loop's next turn: messages of the same read of the socket belong in this call.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def purge(self) -> None:
        """Drops waiting requests that are answered or past their deadline.

        Call it when deadlines passed: while no slot is free, nothing else drops them.
        """
        now = self._clock()
        for key, queue in list(self._queues.items()):
            queue.waiting.purge(now)
            if not queue.waiting:
                del self._queues[key]

    async def close(self) -> None:
        """Drops waiting requests and waits for running calls."""
        self._queues.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        if self.running:
            self._idle.clear()
            await self._idle.wait()
        self._workers.close()

    def _pump(self) -> None:
        """Starts calls, one queue after the other, until no slot is free or no queue is ready."""
        self._pumping = False
        now = self._clock()
        later = math.inf
        passed = 0
        while self.running < self.slots and passed < len(self._queues):
            key, queue = self._queues.popitem(last=False)
            requests, due = queue.waiting.take(now, queue.limit)
            if due < math.inf:
                self._queues[key] = queue
            if requests:
                passed = 0
                self._start(queue, requests, now)
            elif due < math.inf:
                passed += 1
                later = min(later, due)
        self._look_again(later - now)

    def _start(self, queue: ModelQueue, requests: list[Request], now: float) -> None:
        call: Callable[[], BatchOutcome]
        if requests[0].streams:
            call = StreamCall(requests[0], now, queue.emit).run
        else:
            call = partial(run_batch, requests, now)
        self.running += 1
        queue.hold()
        self._workers.start(call, partial(self._done, queue))

    def _done(self, queue: ModelQueue, outcome: BatchOutcome) -> None:
        self.running -= 1
        if queue.tuner is not None and outcome.one_call:
            result = outcome.results[0]
            queue.tuner.measured(result.rows, result.compute_ns / 1e9, self._clock())
        try:
            queue.answered(outcome)
        finally:
            queue.let_go()
            self._pump()
            if not self.running:
                self._idle.set()

    def _look_again(self, seconds: float) -> None:
        """Pumps again after `seconds`, when a request has waited long enough; never for inf."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if seconds < math.inf:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, seconds), self._pump)
