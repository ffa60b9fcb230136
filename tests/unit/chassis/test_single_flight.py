"""Work that many ask for at once is done once."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.single_flight import SingleFlight


class Work:
    """Counts how often it is done; ends when told to."""

    def __init__(self) -> None:
        self.done = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.done += 1
        self.began.set()
        await self.go_on.wait()
        return self.done


async def test_callers_of_one_key_share_one_result() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.go_on.set()

    results = await asyncio.gather(*(flights.run("a", work) for _ in range(3)))

    assert results == [1, 1, 1]


async def test_work_is_done_anew_once_it_has_ended() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.go_on.set()

    assert [await flights.run("a", work), await flights.run("a", work)] == [1, 2]


async def test_work_that_ended_this_very_turn_is_done_anew() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.go_on.set()
    first = flights.start("a", work)
    while not first.done():  # noqa: ASYNC110 - an event would cost the turn that is meant
        await asyncio.sleep(0)

    waits = Work()
    second = flights.start("a", waits)
    await waits.began.wait()

    assert second is not first
    assert flights.start("a", waits) is second
    waits.go_on.set()
    assert [await first, await second] == [1, 1]


async def test_a_caller_that_gives_up_leaves_the_work_to_the_others() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    first = asyncio.create_task(flights.run("a", work))
    second = asyncio.create_task(flights.run("a", work))
    await work.began.wait()

    first.cancel()
    work.go_on.set()

    assert await second == 1


async def test_closing_cancels_the_work() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    caller = asyncio.create_task(flights.run("a", Work()))
    await asyncio.sleep(0)

    await flights.close()

    with pytest.raises(asyncio.CancelledError):
        await caller
