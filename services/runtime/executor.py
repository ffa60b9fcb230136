"""Runs calls in a bounded number of worker threads. Whatever waits for one model when a thread is free, and can be
joined, becomes one call; a lone request waits for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from services.runtime.batching import Request, batch_key
from services.runtime.calls import Answer, execute
from services.runtime.formats.port import LoadedModel
from services.runtime.threads import ThreadLimits
from services.wire.errors import DeadlinePassed, Internal


@dataclass(frozen=True, slots=True)
class Result:
    """An answer and its times in nanoseconds."""

    answer: Answer
    queue_ns: int
    compute_ns: int


@dataclass(slots=True)
class _Waiting:
    request: Request
    model: LoadedModel
    rowwise: bool
    future: asyncio.Future[Result]


@dataclass(slots=True)
class _Lane:
    """What waits for one model version."""

    name: str
    waiting: deque[_Waiting] = field(default_factory=deque)


class Executor:
    """Slots, and a lane of waiting requests for each model version; lanes take turns."""

    def __init__(
        self,
        slots: int,
        *,
        max_batch_rows: int,
        threads_per_call: int = 1,
        batched: Callable[[str, int], None] = lambda name, items: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self._max_rows = max_batch_rows
        self._batched = batched
        self._clock = clock
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._limits = ThreadLimits(threads_per_call)
        self._free = slots
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """Slots in use."""
        return self.slots - self._free

    def models_changed(self) -> None:
        """To be told after a model was loaded, in the loading thread: it may have brought libraries with threads."""
        self._limits.refresh()

    def submit(self, lane: str, model: LoadedModel, request: Request, *, rowwise: bool) -> asyncio.Future[Result]:
        """Queues a request; the future gets its result and never an exception."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, _Lane(lane)).waiting.append(_Waiting(request, model, rowwise, future))
        if not self._pumping:
            # Not at once: the other items of the same message are about to be submitted and belong into this call.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)
        return future

    async def close(self) -> None:
        """Waits for what runs; what only waits is dropped."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pump(self) -> None:
        self._pumping = False
        while self._free and self._lanes:
            name, lane = self._lanes.popitem(last=False)
            group = self._take(lane)
            if lane.waiting:
                self._lanes[name] = lane  # at the end: lanes take turns
            if not group:
                continue
            self._free -= 1
            task = asyncio.create_task(self._run(name, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self, lane: _Lane) -> list[_Waiting]:
        """The first request in time and those behind it that can be joined to it; the others keep their order."""
        now = self._clock()
        group: list[_Waiting] = []
        rest: list[_Waiting] = []
        key, rows = None, 0
        for item in lane.waiting:
            if item.future.done():
                continue
            if item.request.deadline <= now:
                _answer_late(item, now)
            elif not group:
                group.append(item)
                key, rows = batch_key(item.request, item.rowwise), item.request.rows() or 0
            elif (
                key is not None
                and rows + (more := item.request.rows() or 0) <= self._max_rows
                and item.model is group[0].model
                and batch_key(item.request, item.rowwise) == key
            ):
                group.append(item)
                rows += more
            else:
                rest.append(item)
        lane.waiting = deque(rest)
        return group

    async def _run(self, name: str, group: list[_Waiting]) -> None:
        started = self._clock()
        loop = asyncio.get_running_loop()
        self._batched(name, len(group))
        try:
            answers = await loop.run_in_executor(self._pool, self._in_thread, group)
        except Exception as exc:
            answers = [Answer(error=Internal("internal error in the runtime"), cause=exc)] * len(group)
        finally:
            self._free += 1
        for item, answer in zip(group, answers, strict=True):
            queued = max(0, int((started - item.request.received) * 1e9))
            _settle(item, Result(answer, queued, answer.compute_ns))
        self._pump()

    def _in_thread(self, group: list[_Waiting]) -> list[Answer]:
        self._limits.apply()
        return execute(group[0].model, [item.request for item in group], group[0].rowwise)


def _answer_late(item: _Waiting, now: float) -> None:
    error = DeadlinePassed("the deadline passed while the request waited for a free slot; the model was not called")
    _settle(item, Result(Answer(error=error), max(0, int((now - item.request.received) * 1e9)), 0))


def _settle(item: _Waiting, result: Result) -> None:
    if not item.future.done():
        item.future.set_result(result)
