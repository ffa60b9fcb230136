"""Worker threads that run one job each, and hand it back to the loop. Cheaper than futures: one queue, one wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
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
        self._threads = 0
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._idle: asyncio.Event | None = None

    @property
    def free(self) -> bool:
        """Whether a job would begin at once."""
        return self.running < self.count

    def start(self, job: Job, done: Callable[[], None]) -> None:
        """Runs the job in a thread, then calls `done` on the loop."""
        self.running += 1
        if self.running > self._threads:
            self._threads += 1
            Thread(target=self._work, name=f"slot-{self._threads}", daemon=True).start()
        self._tasks.put((job, asyncio.get_running_loop(), done))

    async def close(self) -> None:
        """Waits for what runs, and ends the threads."""
        if self.running:
            self._idle = asyncio.Event()
            await self._idle.wait()
        for _ in range(self._threads):
            self._tasks.put(None)
        self._threads = 0

    def _finish(self, done: Callable[[], None]) -> None:
        self.running -= 1
        done()
        if self._idle is not None and not self.running:
            self._idle.set()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            job, loop, done = task
            job.run()
            try:
                loop.call_soon_threadsafe(self._finish, done)
            except RuntimeError:
                return  # the loop is closed; nobody waits any more
            del task, job, loop, done  # an idle thread keeps no data alive
