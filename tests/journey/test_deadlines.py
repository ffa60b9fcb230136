"""A caller's time is its own: it hears when it is over, whatever the model does, and nothing is
begun for it then.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.journey.doors import Door
from tests.journey.probe import Probe, row
from tests.journey.stack import Platform, soon

# Tries in which a promise must be seen once: a stall of the machine is not the platform's fault.
TRIES = 3
# How a caller says for how many seconds it waits: the call's deadline, or the protocol's
# parameter in microseconds.
WAYS: dict[str, Callable[[float], dict[str, Any]]] = {
    "deadline": lambda seconds: {"deadline": seconds},
    "parameter": lambda seconds: {"timeout": round(seconds * 1e6)},
}


@pytest.fixture(scope="module")
def probe(lab: Platform, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(lab, tmp_path_factory.mktemp("probe"), "patient")


async def seen_once(measure: Callable[[], Awaitable[float]], least: float, most: float) -> None:
    """Fails unless one of a few measurements lies in the range."""
    found: list[float] = []
    while not found or not least <= found[-1] <= most:
        assert len(found) < TRIES, f"never between {least} and {most}: {found}"
        found.append(await measure())


@pytest.mark.parametrize("way", WAYS)
async def test_a_timeout_of_200_ms_behind_a_busy_model_fires_within_250(
    door: Door, probe: Probe, way: str
) -> None:
    async def slowest_of_ten() -> float:
        asked = [door.infer(probe.name, [row(float(n))], **WAYS[way](0.2)) for n in range(10)]
        answers = await asyncio.gather(*asked)
        # Who is told at once that its time will not do has heard in time as well.
        assert {answer.status for answer in answers} <= {504, 429}
        return max(answer.seconds for answer in answers)

    async with probe.busy(door):
        await seen_once(slowest_of_ten, 0.0, 0.25)


@pytest.mark.parametrize("way", WAYS)
async def test_a_second_for_a_call_of_ten_ends_after_a_second(
    door: Door, probe: Probe, way: str
) -> None:
    async def told_after() -> float:
        gate, value = probe.new_gate(), 500.0
        asked = asyncio.create_task(
            door.infer(probe.name, [row(value, gate=gate)], **WAYS[way](1.0))
        )
        await probe.reached(value)
        answer = await asked
        probe.open(gate)
        assert answer.status == 504
        assert "deadline" in answer.message.lower()
        return answer.seconds

    # What the services keep of the time, to be able to say so, is less than a tenth.
    await seen_once(told_after, 0.9, 1.25)


async def test_whose_time_was_over_in_the_queue_is_never_worked_on(
    door: Door, probe: Probe
) -> None:
    values = [700.0 + number for number in range(20)]
    async with probe.busy(door):
        late = [door.infer(probe.name, [row(value)], deadline=0.15) for value in values]
        answers = await asyncio.gather(*late)
    after = await door.infer(probe.name, [row(1.0)])

    told = [answer.message for answer in answers if answer.status not in (504, 429)]
    assert not told
    assert after.values == [2.0]
    assert not set(values) & set(probe.seen())


def lines_of(platform: Platform, request_id: str) -> list[Mapping[str, Any]]:
    """What the services' logs say of a request."""
    found = [
        line
        for line in platform.log_path.read_text().splitlines()
        if request_id in line and line.endswith("}")
    ]
    return [json.loads(line) for line in found]


async def timeouts(
    platform: Platform, door: Door, probe: Probe, **given: Any
) -> tuple[float, float]:
    """The milliseconds that the router was given for a call, and those that the runtime was
    given.
    """
    request_id = f"hops-{uuid.uuid4().hex}"
    answer = await door.infer(probe.name, [row(1.0)], request_id=request_id, **given)
    assert answer.status == 200, answer.message

    def told() -> dict[str, float]:
        return {
            line["event"]: line["timeout_ms"]
            for line in lines_of(platform, request_id)
            if "timeout_ms" in line
        }

    await soon(lambda: set(told()) == {"call", "model_called"}, 10, "both have logged it")
    return told()["call"], told()["model_called"]


@pytest.mark.parametrize("way", WAYS)
async def test_less_is_left_at_every_hop(lab: Platform, door: Door, probe: Probe, way: str) -> None:
    router, runtime = await timeouts(lab, door, probe, **WAYS[way](5.0))

    assert 0 < runtime < router
    # The parameter counts from where it is read.
    assert router < 5000 if way == "deadline" else router <= 5000
    assert runtime > 4000


async def test_a_call_that_names_no_deadline_has_one(
    lab: Platform, door: Door, probe: Probe
) -> None:
    default = 30_000 if type(door).__name__ == "RestDoor" else 300_000

    router, runtime = await timeouts(lab, door, probe)

    assert default - 5000 < runtime < router <= default


async def test_nobody_gets_more_time_than_the_cap(lab: Platform, door: Door, probe: Probe) -> None:
    router, _ = await timeouts(lab, door, probe, deadline=99_999.0)

    assert 295_000 < router <= 300_000
