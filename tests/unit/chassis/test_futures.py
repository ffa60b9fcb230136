"""Outcomes that arrive for futures."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.futures import settle
from stellwerk.wire.errors import Unavailable


async def test_a_future_ends_with_its_outcome() -> None:
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    settle(answered, "reply")
    settle(failed, Unavailable("the router is stopping"))

    assert await answered == "reply"
    with pytest.raises(Unavailable):
        await failed


async def test_an_outcome_after_the_end_is_ignored() -> None:
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settle(answered, "reply")
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    gone.cancel()

    settle(answered, Unavailable("late"))
    settle(gone, "late")

    assert await answered == "reply"
    assert gone.cancelled()
