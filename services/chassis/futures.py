"""Futures that wait for an outcome which may arrive after their waiter has gone."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Ends `future` with the outcome: an exception is raised in its waiter, anything else returned.

    Does nothing to a future that has ended: its waiter was cancelled, or an earlier outcome came.
    """
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
