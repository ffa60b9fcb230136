"""Answers that are given again: only where the owner says so, only to equal requests, and only good
ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.tensors import to_numpy
from tests.fakes import models
from tests.fakes.runtime_inside import Rig, rig
from tests.fakes.work import item


class Negating(LoadedModel):
    """Negates; raises on 13; notes the rows of each call."""

    device, memory_bytes = "cpu", 1

    def __init__(self) -> None:
        self.calls: list[int] = []

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x: Any = inputs["x"]
        self.calls.append(len(x))
        if (x == 13).any():
            raise ValueError("thirteen")
        return {"y": -x, "z": x}

    def close(self) -> None: ...


def stored(made: Rig, *, response_cache: bool = True) -> repository_pb2.ModelVersion:
    version = models.version("skops")
    version.serving.response_cache = response_cache
    return made.add(version)


def one(name: str, value: float, **fields: Any) -> Any:
    return item(name, [[float(value)]], **fields)


async def test_an_equal_request_is_answered_without_a_call(tmp_path: Path) -> None:
    model = Negating()
    async with rig(tmp_path, model=model) as made:
        version = stored(made)
        await made.serve(version)
        first, other = await made.ask(version, one("1", 1), one("2", 2))

        again, new, both = await made.ask(version, one("3", 1), one("4", 3), one("5", 2))

        assert [
            to_numpy(reply.outputs[0]).tolist() for reply in (first, other, again, new, both)
        ] == [
            [[-1.0]],
            [[-2.0]],
            [[-1.0]],
            [[-3.0]],
            [[-2.0]],
        ]
        assert [reply.cached for reply in (first, other, again, new, both)] == [
            False,
            False,
            True,
            False,
            True,
        ]
        assert again.rows == 1 and not again.leads and again.input_ns > 0 and not again.compute_ns
        assert model.calls == [2, 1]
        assert made.sample("stellwerk_model_recalled_total", model_version=version.name) == 2
        assert (
            made.sample("stellwerk_model_calls_total", model_version=version.name, outcome="ok")
            == 5
        )


async def test_a_request_that_differs_in_what_it_wants_is_another(tmp_path: Path) -> None:
    model = Negating()
    async with rig(tmp_path, model=model) as made:
        version = stored(made)
        await made.serve(version)
        await made.ask(version, one("1", 1))

        replies = await made.ask(
            version, one("2", 1, outputs=["z"]), one("3", 1, method="predict_proba")
        )

        assert not any(reply.cached for reply in replies)
        assert to_numpy(replies[0].outputs[0]).tolist() == [[1.0]]


async def test_an_error_is_not_kept(tmp_path: Path) -> None:
    model = Negating()
    async with rig(tmp_path, model=model) as made:
        version = stored(made)
        await made.serve(version)

        first = await made.ask(version, one("1", 13), one("2", 1, outputs=["w"]))
        second = await made.ask(version, one("3", 13), one("4", 1, outputs=["w"]))

        assert [reply.error.reason for reply in first + second] == [
            "MODEL_FAILED",
            "INVALID_INPUT",
        ] * 2
        assert len(model.calls) == 4


async def test_an_invalid_request_is_refused_before_anything_is_looked_up(tmp_path: Path) -> None:
    async with rig(tmp_path, model=Negating()) as made:
        version = stored(made)
        await made.serve(version)
        await made.ask(version, one("1", 1))
        short = one("2", 1)
        short.inputs[0].data = short.inputs[0].data[:-1]

        (reply,) = await made.ask(version, short)

        assert reply.error.reason == "INVALID_INPUT"


async def test_who_does_not_ask_for_it_is_called_each_time(tmp_path: Path) -> None:
    model = Negating()
    async with rig(tmp_path, model=model) as made:
        version = stored(made, response_cache=False)
        await made.serve(version)

        for number in range(3):
            (reply,) = await made.ask(version, item(str(number), np.ones((1, 1))))
            assert not reply.cached

        assert model.calls == [1, 1, 1]
