"""Futures that wait for an outcome which may arrive after their waiter has gone."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from stellwerk.wire.errors import ServiceError

T = TypeVar("T")


def settle(future: asyncio.Future[T], outcome: T | ServiceError) -> None:
    """Ends `future` with the outcome: its exception if that is a ServiceError, else its result. A
    future that has ended, such as a cancelled one, stays as it is.
    """
    if future.done():
        return
    if isinstance(outcome, ServiceError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
