"""Worker threads: one is woken for each job, the one that worked last; jobs that run together have
threads each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from services.runtime.execution.workers import WorkerThreads


class Job:
    """Notes its thread; ends when it may."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.thread = 0
        self._wait = wait

    def run(self) -> None:
        self.thread = threading.get_ident()
        self._wait()


async def run_all(slots: WorkerThreads, *jobs: Job) -> None:
    """Starts the jobs at once; returns when all are done."""
    left = len(jobs)
    ended = asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    for job in jobs:
        slots.start(job, done)
    await asyncio.wait_for(ended.wait(), 10)


async def test_jobs_run_together_in_threads_of_their_own() -> None:
    slots, meeting = WorkerThreads(3), threading.Barrier(3)
    jobs = [Job(lambda: meeting.wait(10)) for _ in range(3)]

    await run_all(slots, *jobs)

    assert len({job.thread for job in jobs}) == 3
    await slots.close()


async def test_a_lone_job_goes_to_the_thread_that_worked_last() -> None:
    slots, meeting = WorkerThreads(2), threading.Barrier(2)
    await run_all(slots, *(Job(lambda: meeting.wait(10)) for _ in range(2)))

    lone = [Job() for _ in range(5)]
    for job in lone:
        await run_all(slots, job)

    assert len({job.thread for job in lone}) == 1
    await slots.close()


async def test_closing_waits_for_what_runs_and_ends_the_threads() -> None:
    slots, go = WorkerThreads(2), threading.Event()
    before = set(threading.enumerate())
    done: list[str] = []
    slots.start(Job(lambda: go.wait(10)), lambda: done.append("first"))
    slots.start(Job(), lambda: done.append("second"))
    mine = set(threading.enumerate()) - before

    closing = asyncio.create_task(slots.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await asyncio.wait_for(closing, 10)

    assert sorted(done) == ["first", "second"]
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()
