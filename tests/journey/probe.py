"""A model that does what its input says and takes notes, for tests of what happens around a call.

A row is (value, gate, seconds). A call waits until the gates of its rows are open, then sleeps for
the longest of their seconds; it answers twice each value and raises if one is negative. Neither
waiting nor sleeping takes a core from those who are measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from stellwerk.client import connect
from tests.fakes.eventually import eventually
from tests.journey.doors import Door
from tests.journey.stack import Platform

# Of the laboratory's runtime.
SLOTS = 2

# A gate that nobody opens, because its test has failed, must not hold a slot for ever.
PATIENCE = 40.0
FAULTY = -1.0


def row(value: float, *, gate: int = 0, seconds: float = 0.0) -> list[float]:
    """What to ask the probe; gate 0 is always open."""
    return [value, float(gate), seconds]


@dataclass(frozen=True)
class Call:
    """One call of the model: when it began, of time.monotonic(), and the values of its rows."""

    began: float
    values: list[float]


class Probe:
    """The model in one platform, and what it has noted."""

    def __init__(self, platform: Platform, folder: Path, name: str, **stored: Any) -> None:
        """`stored` goes to models.put."""
        self.name, self._folder, self._gates = name, folder, 0
        self._holders = itertools.count(1e9)
        folder.mkdir(parents=True, exist_ok=True)
        with connect(platform.http, platform.token) as client:
            example = np.array([row(1.0)])
            model = _estimator(str(folder), PATIENCE)
            version = client.models.put(
                model, name, format="pickle", unsafe=True, example=example, **stored
            )
            client.runtime.model(name).predict(example)
        # The label of its metrics.
        self.version = f"buckets/default/models/{name}/versions/{version.version}"

    def new_gate(self) -> int:
        """A gate that is closed."""
        self._gates += 1
        return self._gates

    def open(self, gate: int) -> None:
        """Lets everybody through, from now on."""
        (self._folder / f"gate-{gate}").touch()

    def calls(self) -> list[Call]:
        """Every call, in the order in which they began."""
        notes = self._folder / "calls"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return sorted((Call(**json.loads(line)) for line in lines), key=lambda call: call.began)

    def seen(self) -> list[float]:
        """The values that the model was called with, in this order."""
        return [value for call in self.calls() for value in call.values]

    async def reached(self, *values: float) -> None:
        """Waits until calls with these values have begun."""
        await eventually(lambda: set(values) <= set(self.seen()), within=20)

    @asynccontextmanager
    async def busy(self, door: Door, slots: int = SLOTS) -> AsyncIterator[None]:
        """Keeps `slots` slots occupied, each by one call; whoever comes waits until the end of the
        block.
        """
        gate, holders = self.new_gate(), []
        try:
            for value in itertools.islice(self._holders, slots):
                holders.append(asyncio.create_task(door.infer(self.name, [row(value, gate=gate)])))
                await self.reached(value)
            yield
        finally:
            self.open(gate)
            answers = await asyncio.gather(*holders)
        assert {answer.status for answer in answers} == {200}


def _estimator(folder: str, patience: float) -> Any:
    """The model as an object whose class travels with it."""

    class Notes(BaseEstimator):  # type: ignore[misc]
        n_features_in_ = 3

        def predict(self, X: Any) -> Any:
            rows = np.asarray(X, float)
            line = json.dumps({"began": time.monotonic(), "values": rows[:, 0].tolist()}) + "\n"
            notes = os.open(f"{folder}/calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(notes, line.encode())
            finally:
                os.close(notes)
            until = time.monotonic() + patience
            for gate in {int(number) for number in rows[:, 1] if number}:
                while not os.path.exists(f"{folder}/gate-{gate}") and time.monotonic() < until:
                    time.sleep(0.002)
            time.sleep(float(rows[:, 2].max()))
            if (rows[:, 0] < 0).any():
                raise ValueError("there is no answer to negative numbers")
            return rows[:, 0] * 2

    return Notes()
