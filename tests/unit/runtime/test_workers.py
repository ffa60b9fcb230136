"""Worker threads: one is woken for each piece of work, the one that worked last; work that runs
together has threads each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from services.runtime.execution.workers import NativeThreadLimit, WorkerThreads


def worker_threads() -> WorkerThreads:
    return WorkerThreads(NativeThreadLimit(1))


def thread_after(wait: Callable[[], object] = lambda: None) -> Callable[[], int]:
    """Work that waits, then answers which thread does it."""

    def work() -> int:
        wait()
        return threading.get_ident()

    return work


async def run_all(workers: WorkerThreads, *works: Callable[[], int]) -> list[int]:
    """Starts the work at once; the results when all of it is done."""
    results: list[int] = []
    ended = asyncio.Event()

    def done(result: int) -> None:
        results.append(result)
        if len(results) == len(works):
            ended.set()

    for work in works:
        workers.start(work, done)
    await asyncio.wait_for(ended.wait(), 10)
    return results


async def test_work_runs_together_in_threads_of_its_own() -> None:
    workers, meeting = worker_threads(), threading.Barrier(3)

    threads = await run_all(workers, *[thread_after(lambda: meeting.wait(10))] * 3)

    assert len(set(threads)) == 3
    workers.close()


async def test_lone_work_goes_to_the_thread_that_worked_last() -> None:
    workers, meeting = worker_threads(), threading.Barrier(2)
    await run_all(workers, *[thread_after(lambda: meeting.wait(10))] * 2)

    threads = [await run_all(workers, thread_after()) for _ in range(5)]

    assert len({thread for (thread,) in threads}) == 1
    workers.close()


async def test_work_may_follow_at_once_from_the_result_of_other_work() -> None:
    workers, results = worker_threads(), list[int]()
    ended = asyncio.Event()

    def done(result: int) -> None:
        results.append(result)
        if len(results) < 200:
            workers.start(thread_after(), done)
        else:
            ended.set()

    workers.start(thread_after(), done)
    await asyncio.wait_for(ended.wait(), 10)

    assert len(set(results)) == 1
    workers.close()


async def test_closing_ends_the_threads() -> None:
    workers = worker_threads()
    before = set(threading.enumerate())
    await run_all(workers, thread_after())
    mine = set(threading.enumerate()) - before

    workers.close()

    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


async def test_a_worker_sets_its_limit_once_after_each_load() -> None:
    class Counted(NativeThreadLimit):
        """Counts how often a thread sets its limit."""

        times = 0

        def apply(self) -> None:
            self.times += 1

    limit = Counted(1)
    workers = WorkerThreads(limit)

    await run_all(workers, thread_after())
    await run_all(workers, thread_after())
    assert limit.times == 1
    limit.generation += 1
    await run_all(workers, thread_after())

    assert limit.times == 2
    workers.close()
