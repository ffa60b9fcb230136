"""Runs one piece of work per key at a time; callers that ask meanwhile share its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Holds the tasks that are under way, by key."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Returns the task of this key, started now unless it is under way. Await it shielded."""
        task = self._tasks.get(key)
        # A task that has ended stays in the table until the event loop's next turn.
        if task is None or task.done():
            task = asyncio.create_task(work())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Returns the result of `work`, or of the task of this key that is under way.

        A caller that is cancelled leaves the task to the others. Raises what the work raises.
        """
        return await asyncio.shield(self.start(key, work))

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            # Marks the exception as retrieved: asyncio would log it if every caller is gone.
            task.exception()

    async def close(self) -> None:
        """Cancels the tasks that are under way and waits for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
