"""Retries work with jittered exponential waits, until it succeeds or for ever; ends tasks, and
lets work end.

The waits are tenacity's. Every reconnect of the platform goes through here, so all of them back
off, spread out and report in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

T = TypeVar("T")

# Called with the exception and whether it repeats the one before: True when class and text are
# those of the last failure since a success, so that it need not be logged again.
Failed = Callable[[Exception, bool], None]
# Work is given a function to call once it has reached its goal, such as an open connection.
Work = Callable[[Callable[[], None]], Awaitable[None]]
FIRST_SECONDS = 0.1
LONGEST_SECONDS = 3.0
# Seconds after which a task that goes on is cancelled again: more than a clean-up takes.
_AGAIN_SECONDS = 5.0


class _Attempts:
    """Counts the attempts of one piece of work since its last success."""

    def __init__(self, work: Work, failed: Failed, first: float, longest: float) -> None:
        self._work = work
        self._failed = failed
        self._longest = longest
        # Between half of the first wait and a bound that doubles: many clients that lost the same
        # server come back spread out.
        self._waits = wait_random_exponential(multiplier=first, max=longest, min=first / 2)
        self._succeeded = False
        self._last = ""

    async def attempt(self) -> None:
        """Does the work once."""
        began = time.monotonic()
        self._succeeded = False
        try:
            await self._work(self.succeeded)
        finally:
            if time.monotonic() - began > self._longest:
                self.succeeded()
        self.succeeded()

    def succeeded(self) -> None:
        """Notes that the work reached its goal: the next failure is new and waits shortest."""
        self._succeeded = True
        self._last = ""

    def wait(self, state: RetryCallState) -> float:
        """Returns the seconds to wait before the next attempt."""
        if self._succeeded:
            state.attempt_number = 1
        return self._waits(state)

    def report(self, state: RetryCallState) -> None:
        """Reports the failure of an attempt."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}"
            repeats = text == self._last
            self._last = text
            self._failed(error, repeats)


async def retry(
    work: Work,
    failed: Failed,
    *,
    expected: type[Exception] | tuple[type[Exception], ...],
    first_seconds: float = FIRST_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> None:
    """Does `work` until it returns.

    After each exception of the `expected` classes it calls `failed` and waits: up to
    `first_seconds` after the first failure in a row, up to twice as long after the next, at most
    `longest_seconds`. A row ends when the work calls the function that it is given, or when an
    attempt lasted longer than `longest_seconds`. Raises any other exception at once.
    """
    attempts = _Attempts(work, failed, first_seconds, longest_seconds)
    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        wait=attempts.wait,
        retry=retry_if_exception_type(expected),
        before_sleep=attempts.report,
        reraise=True,
    )
    await retrying(attempts.attempt)


async def run_forever(
    work: Work,
    failed: Failed,
    *,
    expected: type[Exception] | tuple[type[Exception], ...],
    first_seconds: float = FIRST_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> NoReturn:
    """Does `work` again and again: at once after it returns, otherwise as `retry` does.

    The work must wait for something before it returns, or nothing else runs.
    """
    while True:
        await retry(
            work,
            failed,
            expected=expected,
            first_seconds=first_seconds,
            longest_seconds=longest_seconds,
        )


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and returns when they have ended, however they ended.

    A task that goes on is cancelled again, since a library may lose a cancellation: in Python 3.11
    `asyncio.wait_for` returns a result that comes in the same turn instead
    (https://github.com/python/cpython/issues/86296), and PyMongo sends every command with it.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def to_its_end(work: Awaitable[T]) -> T:
    """Returns the result of `work`, which goes on to its end even if the caller is cancelled
    meanwhile; only then CancelledError is raised.

    For a write that may have to be undone: the server goes on with a command whose client has gone,
    so what undid a command that was cut off could come before it.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        # Its error, if any, is of no interest to a caller that has gone.
        if not task.cancelled():
            task.exception()
        raise
