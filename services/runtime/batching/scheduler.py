"""Runs calls in a bounded number of slots. Whatever waits for one version when a slot is free, and
can be joined, becomes one call; a lone request waits for nobody unless its model's owner wants it
to.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.runtime.batching.batch_size import BatchTuner
from services.runtime.batching.queue import Waiting
from services.runtime.execution.jobs import CallJob, Emit, StreamJob
from services.runtime.execution.native_threads import ThreadLimits
from services.runtime.execution.workers import Slots
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.request import Request


@dataclass(slots=True, eq=False)
class Lane:
    """What waits for one version, and what happens around its calls."""

    name: str
    policy: BatchPolicy
    # Takes a job that is done; and, from a decoupled method, each answer on the way.
    answered: Callable[[Lane, CallJob | StreamJob], None]
    emit: Emit
    # Whether answers are kept and given again.
    recalls: bool = False
    # Keeps the model in memory while a call runs, however its callers fare.
    hold: Callable[[], object] = lambda: None
    let_go: Callable[[], object] = lambda: None
    waiting: Waiting = field(init=False)
    tuner: BatchTuner | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.waiting = Waiting(self.policy)
        if self.policy.objective:
            self.tuner = BatchTuner(self.policy.objective, self.policy.max_rows)

    @property
    def limit(self) -> int:
        """Rows of the next call."""
        return self.tuner.limit if self.tuner is not None else self.policy.max_rows


class Executor:
    """Slots and lanes; lanes take turns."""

    def __init__(
        self,
        slots: int,
        *,
        max_batch_rows: int,
        threads_per_call: int = 1,
        batched: Callable[[str, int], None] = lambda name, items: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_batch_rows = max_batch_rows
        self._batched = batched
        self._clock = clock
        self._slots = Slots(slots)
        self._limits = ThreadLimits(threads_per_call)
        # Those in which something waits, the one whose turn it is first.
        self._lanes: OrderedDict[int, Lane] = OrderedDict()
        self._pumping = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def slots(self) -> int:
        """Calls that can run at the same time."""
        return self._slots.count

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._slots.running

    def models_changed(self) -> None:
        """To be told after a model was loaded, in the loading thread: it may have brought libraries
        with threads.
        """
        self._limits.refresh()

    def submit(self, lane: Lane, requests: Sequence[Request]) -> None:
        """Queues requests, which are given to the lane's `answered` with what became of them."""
        for request in requests:
            lane.waiting.add(request)
        self._lanes.setdefault(id(lane), lane)
        if not self._pumping and self._slots.free:
            # Not at once: what else came with the same read of the socket belongs into this call.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def purge(self, lane: Lane) -> None:
        """Forgets what was answered while it waited. To be told when deadlines passed: a slot may
        never be free.
        """
        lane.waiting.purge(self._clock())
        if not lane.waiting:
            self._lanes.pop(id(lane), None)

    async def close(self) -> None:
        """Waits for what runs; what only waits is dropped."""
        self._lanes.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        await self._slots.close()

    def _pump(self) -> None:
        """Starts what can start: lanes take turns until no slot is free or none of them is
        ready.
        """
        self._pumping = False
        now, later, passed = self._clock(), float("inf"), 0
        while self._slots.free and passed < len(self._lanes):
            key, lane = self._lanes.popitem(last=False)
            requests, due = lane.waiting.take(now, lane.limit)
            if lane.waiting:
                self._lanes[key] = lane
            if requests:
                passed = 0
                self._start(lane, requests, now)
            elif lane.waiting:
                passed += 1
                later = min(later, due)
        self._look_again(later - now)

    def _start(self, lane: Lane, requests: list[Request], now: float) -> None:
        job: CallJob | StreamJob
        if requests[0].decoupled:
            job = StreamJob(requests[0], now, self._limits.apply, lane.emit)
        else:
            job = CallJob(requests, now, self._limits.apply)
        self._batched(lane.name, len(requests))
        lane.hold()
        self._slots.start(job, lambda: self._done(lane, job))

    def _done(self, lane: Lane, job: CallJob | StreamJob) -> None:
        outcome = job.outcome
        if lane.tuner is not None and outcome.measured:
            piece = outcome.pieces[0]
            lane.tuner.measured(piece.rows, piece.compute_ns / 1e9, self._clock())
        try:
            lane.answered(lane, job)
        finally:
            lane.let_go()
            self._pump()

    def _look_again(self, seconds: float) -> None:
        """When a request has waited for company long enough."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if seconds < float("inf"):
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, seconds), self._pump)
