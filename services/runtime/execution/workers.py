"""Runs jobs in a bounded number of worker threads, and bounds the threads that numeric libraries
start inside each job, so that slots × threads stays the number of cores.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

import threadpoolctl  # type: ignore[import-untyped]


class Job(Protocol):
    """Work for a worker thread. `run` must not raise."""

    def run(self) -> None: ...


# A job, the loop that waits for it, and what to call there after it ran.
_Task = tuple[Job, asyncio.AbstractEventLoop, Callable[[], None]]


class WorkerThreads:
    """Up to `count` threads, started as they are needed. Each wake-up costs less than a future's.

    The threads are daemons: a model that never returns must not keep the process from ending.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.running = 0
        # Idle workers; the one that ran last is at the end and gets the next job, because its
        # caches are warm.
        self._resting: list[_Worker] = []
        self._threads = 0
        self._idle: asyncio.Event | None = None

    @property
    def free(self) -> bool:
        """True if a job would start at once."""
        return self.running < self.count

    def start(self, job: Job, done: Callable[[], None]) -> None:
        """Runs the job in a thread, then calls `done` on the event loop."""
        self.running += 1
        if self._resting:
            worker = self._resting.pop()
        else:
            self._threads += 1
            worker = _Worker(f"slot-{self._threads}")
        worker.give((job, asyncio.get_running_loop(), lambda: self._finish(worker, done)))

    async def close(self) -> None:
        """Waits for running jobs, then ends the threads."""
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
    """A thread with a lock of its own to wait at: at a shared queue each job would wake two."""

    def __init__(self, name: str) -> None:
        self._task: _Task | None = None
        self._given = threading.Lock()
        self._given.acquire()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def give(self, task: _Task | None) -> None:
        """Hands the task to the idle thread; None ends the thread."""
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
                return  # the loop is closed, so no one waits for the job
            del task, job, loop, done  # an idle thread keeps no request alive


class NativeThreadLimit:
    """Limits the threads of OpenMP and BLAS libraries in every worker thread.

    OpenMP keeps a limit per calling thread; OpenBLAS keeps one per process, which only the first
    thread to ask may set. So the loading thread sets the limit after each load, which may bring new
    libraries, and each worker thread sets its own before its next call. Between loads that costs
    one comparison per call.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._generation = 1
        self._seen = threading.local()

    def refresh(self) -> None:
        """Applies the limit to newly loaded libraries. Call it in the one thread that loads, before
        a worker thread calls the new model.
        """
        threadpoolctl.threadpool_limits(self._limit)
        self._generation += 1

    def apply(self) -> None:
        """Applies the limit to the libraries that the calling worker thread may call."""
        generation = self._generation
        if getattr(self._seen, "generation", 0) != generation:
            threadpoolctl.threadpool_limits(self._limit)
            self._seen.generation = generation
