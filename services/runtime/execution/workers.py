"""Worker threads that run one job each, and hand it back to the loop. Cheaper than futures: one
wake-up each way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock, Thread
from typing import Protocol


class Job(Protocol):
    """Something to do in a worker thread; `run` must not raise."""

    def run(self) -> None: ...


_Task = tuple[Job, asyncio.AbstractEventLoop, Callable[[], None]]


class Slots:
    """So many threads at most, started as they are needed.

    They are daemons: a model that never returns must not keep the process from ending.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.running = 0
        # Workers without a job, the one that had one last at the end: it is given the next, while
        # its caches are warm.
        self._resting: list[_Worker] = []
        self._threads = 0
        self._idle: asyncio.Event | None = None

    @property
    def free(self) -> bool:
        """Whether a job would begin at once."""
        return self.running < self.count

    def start(self, job: Job, done: Callable[[], None]) -> None:
        """Runs the job in a thread, then calls `done` on the loop."""
        self.running += 1
        if self._resting:
            worker = self._resting.pop()
        else:
            self._threads += 1
            worker = _Worker(f"slot-{self._threads}")
        worker.give((job, asyncio.get_running_loop(), lambda: self._finish(worker, done)))

    async def close(self) -> None:
        """Waits for what runs, and ends the threads."""
        if self.running:
            self._idle = asyncio.Event()
            await self._idle.wait()
        for worker in self._resting:
            worker.give(None)
        self._resting.clear()

    def _finish(self, worker: _Worker, done: Callable[[], None]) -> None:
        self.running -= 1
        self._resting.append(worker)
        done()
        if self._idle is not None and not self.running:
            self._idle.set()


class _Worker:
    """One thread. It has a lock of its own to wait at: of threads that share a queue, each job
    wakes two.
    """

    def __init__(self, name: str) -> None:
        self._task: _Task | None = None
        self._given = Lock()
        self._given.acquire()
        Thread(target=self._work, name=name, daemon=True).start()

    def give(self, task: _Task | None) -> None:
        """Has the thread run the task, or end. Only for a worker at rest."""
        self._task = task
        self._given.release()

    def _work(self) -> None:
        while self._given.acquire() and (task := self._task) is not None:
            self._task = None
            job, loop, done = task
            job.run()
            try:
                loop.call_soon_threadsafe(done)
            except RuntimeError:
                return  # the loop is closed; nobody waits any more
            del task, job, loop, done  # an idle thread keeps no data alive
