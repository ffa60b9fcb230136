"""Work that is retried: how its failures are told, and when a row of failures ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from services.chassis.background import end, retry, run_forever, to_its_end

FAST = {"first_seconds": 0.0001, "longest_seconds": 0.001}


class Scripted:
    """Work that goes through its steps: an exception to raise, or None to return."""

    def __init__(self, *steps: Exception | None) -> None:
        self.steps = list(steps)
        self.failures: list[tuple[str, bool]] = []

    async def work(self, succeeded: Callable[[], None]) -> None:
        step = self.steps.pop(0)
        if step is not None:
            raise step

    def failed(self, error: Exception, repeats: bool) -> None:
        self.failures.append((str(error), repeats))


async def test_work_is_done_until_it_returns() -> None:
    script = Scripted(OSError("away"), OSError("away"), None)

    await retry(script.work, script.failed, expected=OSError, **FAST)

    assert script.steps == []


async def test_a_failure_that_repeats_is_told_as_one() -> None:
    script = Scripted(OSError("away"), OSError("away"), OSError("refused"), OSError("away"), None)

    await retry(script.work, script.failed, expected=OSError, **FAST)

    assert script.failures == [
        ("away", False),
        ("away", True),
        ("refused", False),
        ("away", False),
    ]


async def test_a_failure_after_a_success_is_new() -> None:
    script = Scripted(OSError("away"), None, OSError("away"), asyncio.CancelledError())

    with pytest.raises(asyncio.CancelledError):
        await run_forever(script.work, script.failed, expected=OSError, **FAST)

    assert script.failures == [("away", False), ("away", False)]


async def test_a_failure_after_the_goal_was_reached_is_new() -> None:
    failures: list[bool] = []
    attempts = 0

    async def work(succeeded: Callable[[], None]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 4:
            return
        if attempts == 3:
            succeeded()
        raise OSError("the connection was lost")

    await retry(work, lambda _, repeats: failures.append(repeats), expected=OSError, **FAST)

    assert failures == [False, True, False]


async def test_an_exception_that_is_not_expected_ends_the_work() -> None:
    script = Scripted(OSError("away"), ValueError("a fault of ours"))

    with pytest.raises(ValueError, match="a fault of ours"):
        await retry(script.work, script.failed, expected=OSError, **FAST)


async def test_waits_grow_and_begin_anew_after_a_success() -> None:
    loop, times = asyncio.get_running_loop(), list[float]()

    async def work(succeeded: Callable[[], None]) -> None:
        times.append(loop.time())
        if len(times) == 5:
            succeeded()
        if len(times) < 7:
            raise OSError("away")

    await retry(work, lambda *_: None, expected=OSError, first_seconds=0.002, longest_seconds=0.032)

    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(wait >= 0.001 for wait in waits)


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end(task)

    assert lost.is_set()
    assert task.cancelled()


async def test_tasks_that_ended_or_fail_while_they_end_stop_nobody() -> None:
    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    async def nothing() -> None:
        """Ends at once."""

    done, fails = asyncio.create_task(nothing()), asyncio.create_task(failing())
    await asyncio.sleep(0)

    await end(done, fails)
    await end()

    assert done.done() and isinstance(fails.exception(), ValueError)


async def test_work_goes_to_its_end_however_often_its_caller_is_cancelled() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(True)

    caller = asyncio.create_task(to_its_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not caller.done()
    gate.set()
    await asyncio.wait([caller])

    assert done == [True]
    assert caller.cancelled()


async def test_work_that_nobody_cancels_gives_its_result_or_error() -> None:
    async def good() -> int:
        return 7

    async def bad() -> None:
        raise ValueError

    assert await to_its_end(good()) == 7
    with pytest.raises(ValueError):
        await to_its_end(bad())
