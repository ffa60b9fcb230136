"""Calls that are joined share a call of the model and never a fate: each caller has its own rows or
its own error.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from stellwerk.client import connect
from tests.journey.doors import Answer, Door, door_of
from tests.journey.probe import FAULTY, Probe, row
from tests.journey.stack import Platform, soon

CALLERS = 64
SHAPELESS, RAISING = 20, 40


@pytest.fixture(scope="module")
def probe(lab: Platform, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(lab, tmp_path_factory.mktemp("probe"), "isolated")


async def ask_all(
    door: Door, model: str, rows: list[list[float]], **parameters: Any
) -> list[Answer]:
    """One call for each row, all at once."""
    return await asyncio.gather(*[door.infer(model, [each], **parameters) for each in rows])


async def test_one_wrong_shape_and_one_that_raises_cost_nobody_else_anything(
    door: Door, probe: Probe
) -> None:
    rows = [row(float(number), seconds=0.02) for number in range(CALLERS)]
    rows[SHAPELESS] = [float(SHAPELESS), 0.0]
    rows[RAISING] = row(FAULTY, seconds=0.02)
    before = len(probe.calls())

    answers = await ask_all(door, probe.name, rows)

    right = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert len(right) == CALLERS - 2
    assert all(answers[number].values == [2.0 * number] for number in right)
    assert (answers[SHAPELESS].status, answers[RAISING].status) == (400, 400)
    assert "must have the shape [-1, 3], got [1, 2]" in answers[SHAPELESS].message
    assert "the model raised ValueError: there is no answer" in answers[RAISING].message
    assert len(probe.calls()) - before < 40


async def test_every_caller_gets_its_own_rows_however_many_it_sent(
    door: Door, probe: Probe
) -> None:
    sizes = [1 + number % 7 for number in range(CALLERS)]
    asked = [
        [row(1000.0 * number + at, seconds=0.005) for at in range(size)]
        for number, size in enumerate(sizes)
    ]

    answers = await asyncio.gather(*[door.infer(probe.name, rows) for rows in asked])

    for rows, answer in zip(asked, answers, strict=True):
        assert answer.values == [2 * value for value, _, _ in rows]


async def test_who_leaves_and_whose_time_is_up_take_nothing_from_their_neighbours(
    door: Door, probe: Probe
) -> None:
    leaving, late = 1001.0, 1002.0
    async with probe.busy(door):
        neighbours = [
            asyncio.create_task(door.infer(probe.name, [row(2000.0 + n)])) for n in range(20)
        ]
        left = asyncio.create_task(door.infer(probe.name, [row(leaving)]))
        given_up = asyncio.create_task(door.infer(probe.name, [row(late)], deadline=0.05))
        neighbours += [
            asyncio.create_task(door.infer(probe.name, [row(2020.0 + n)])) for n in range(20)
        ]
        told = await given_up
        left.cancel()
        await asyncio.wait([left])

    # Refused at once, if the router knows by now that there is not enough time.
    assert told.status in (504, 429)
    assert told.seconds < 0.5
    assert [answer.values for answer in await asyncio.gather(*neighbours)] == [
        [2 * (2000.0 + n)] for n in range(40)
    ]
    assert late not in probe.seen()


async def test_what_is_cancelled_before_it_is_sent_on_is_never_worked_on(
    door: Door, lab: Platform, tmp_path: Path
) -> None:
    """A model that joins nothing is sent only as much as keeps its slots busy; the rest can still
    be taken back.
    """
    probe = Probe(lab, tmp_path, f"alone-{type(door).__name__}", options={"batching": "off"})
    for _ in range(3):
        await ask_all(door, probe.name, [row(float(n)) for n in range(30)])
    async with probe.busy(door):
        waiting = [
            asyncio.create_task(door.infer(probe.name, [row(3000.0 + n)])) for n in range(40)
        ]
        await soon(lambda: lab.metric("stellwerk_queued", probe.version) >= 20, 10, "they wait")
        for task in waiting[20:]:
            task.cancel()
        await soon(
            lambda: lab.metric("stellwerk_queued", probe.version) <= 20, 10, "they wait no more"
        )

    assert [answer.values for answer in await asyncio.gather(*waiting[:20])] == [
        [2 * (3000.0 + n)] for n in range(20)
    ]
    assert not {3020.0 + n for n in range(20)} & set(probe.seen())


CATEGORIES = 10


@pytest.fixture(scope="session")
def encoder(platform: Platform) -> str:
    """A model that raises of itself: it does not know what it was not fitted on."""
    fitted = OneHotEncoder(handle_unknown="error", sparse_output=False).fit(
        np.arange(float(CATEGORIES))[:, None]
    )
    with connect(platform.http, platform.token) as client:
        client.models.put(fitted, "encoder", example=np.array([[1.0]]))
        client.runtime.model("encoder").transform(np.array([[1.0]]))
    return "encoder"


@pytest.mark.parametrize("kind", ["rest", "grpc"])
async def test_an_unknown_category_is_its_callers_affair(
    platform: Platform, encoder: str, kind: str
) -> None:
    rows = [[float(number % CATEGORIES)] for number in range(CALLERS)]
    rows[SHAPELESS], rows[RAISING] = [1.0, 2.0], [77.0]

    async with door_of(platform, kind) as door:
        answers = await ask_all(door, encoder, rows, method="transform")

    assert (answers[SHAPELESS].status, answers[RAISING].status) == (400, 400)
    assert "the model raised ValueError: Found unknown categories" in answers[RAISING].message
    for number, answer in enumerate(answers):
        if number not in (SHAPELESS, RAISING):
            assert answer.values == np.eye(CATEGORIES)[number % CATEGORIES].tolist()
