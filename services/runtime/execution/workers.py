"""Runs work in worker threads, and bounds the threads that numeric libraries start inside of it, so
that slots × threads stays the number of cores.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
import threadpoolctl  # type: ignore[import-untyped]

T = TypeVar("T")
# Work, the loop that waits for its result, and what to call there with the result.
_Task = tuple[Callable[[], Any], asyncio.AbstractEventLoop, Callable[[Any], None]]

_log = structlog.get_logger("workers")


class NativeThreadLimit:
    """Limits the threads of OpenMP and BLAS libraries.

    OpenMP keeps a limit per calling thread; OpenBLAS keeps one per process, which only the first
    thread to ask may set. So the loading thread sets the limit after each load, which may bring new
    libraries, and each worker thread sets its own before its next call.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The number of the last load; a worker whose number is lower has its limit to set.
        self.generation = 1

    def refresh(self) -> None:
        """Applies the limit to newly loaded libraries. Call it in the one thread that loads, before
        a worker thread calls the new model.
        """
        threadpoolctl.threadpool_limits(self._limit)
        self.generation += 1

    def apply(self) -> None:
        """Applies the limit to the libraries that the calling thread may call."""
        try:
            threadpoolctl.threadpool_limits(self._limit)
        except Exception:
            # A library that cannot be limited is slow beside others, which fails no request.
            _log.exception("threads_not_limited")


class WorkerThreads:
    """Threads for work that blocks, started as they are needed.

    One wake-up of a thread or of the loop costs less than a future's. The threads are daemons: a
    model that never returns must not keep the process from ending.
    """

    def __init__(self, limit: NativeThreadLimit) -> None:
        self._limit = limit
        # Idle workers; the one that ran last is at the end and gets the next work, because its
        # caches are warm.
        self._resting: list[_Worker] = []
        self._threads = 0

    def start(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Runs `work`, which must not raise, in a thread; then calls `done` with its result on the
        event loop.
        """
        if self._resting:
            worker = self._resting.pop()
        else:
            self._threads += 1
            worker = _Worker(f"slot-{self._threads}", self._limit, self._resting)
        worker.give((work, asyncio.get_running_loop(), done))

    def close(self) -> None:
        """Ends the idle threads. Call it when no work runs."""
        for worker in self._resting:
            worker.give(None)
        self._resting.clear()


class _Worker:
    """A thread with a lock of its own to wait at: at a shared queue each task would wake two."""

    def __init__(self, name: str, limit: NativeThreadLimit, resting: list[_Worker]) -> None:
        self._limit = limit
        self._resting = resting
        self._task: _Task | None = None
        self._given = threading.Lock()
        self._given.acquire()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def give(self, task: _Task | None) -> None:
        """Hands the task to the idle thread; None ends the thread."""
        self._task = task
        self._given.release()

    def _work(self) -> None:
        limited = 0
        while self._given.acquire() and (task := self._task) is not None:
            self._task = None
            if limited != self._limit.generation:
                limited = self._limit.generation
                self._limit.apply()
            work, loop, done = task
            result = work()
            # Idle before the loop hears of it, so that the loop may hand it the next task at once.
            self._resting.append(self)
            try:
                loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                return  # the loop is closed, so no one waits for the result
            del task, work, loop, done, result  # an idle thread keeps no request alive
