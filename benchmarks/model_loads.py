"""B8: how often a runtime loads a model of 50 MB that is asked for 100 times, the first eight at
once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from benchmarks.measurement import WrongAnswer
from benchmarks.ours import Stellwerk
from benchmarks.work import LARGE_FEATURES, infer_body, large_model

MODEL = "large"
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Loads:
    """What was counted, and what was asked for."""

    predictions: int
    loads: float
    megabytes: float

    @property
    def reached(self) -> bool:
        """Whether the model was loaded once and no more."""
        return self.loads == 1

    def as_json(self) -> dict[str, Any]:
        """As it stands in the results."""
        return {
            "id": "B8",
            "title": f"loads of a {self.megabytes:.0f} MB model in {self.predictions} predictions",
            "target": 1,
            "loads": self.loads,
            "reached": self.reached,
        }


def count(system: Stellwerk, predictions: int) -> Loads:
    """Stores the model and asks for predictions; raises WrongAnswer if one is not what the model
    says here.
    """
    model = large_model()
    rows = np.random.default_rng(seed=11).normal(size=(predictions, LARGE_FEATURES))
    expected = model.predict(rows)
    tensor = system.store(model, MODEL)
    before = system.model_loads(MODEL)
    with httpx.Client(timeout=120) as client, ThreadPoolExecutor(AT_ONCE) as pool:

        def ask(index: int) -> np.ndarray:
            call = system.rest(
                MODEL, infer_body(tensor.name, tensor.datatype, [rows[index].tolist()])
            )
            answer = client.post(call.url, content=call.body, headers=dict(call.headers))
            if answer.status_code != 200:
                raise WrongAnswer(
                    f"prediction {index} was answered {answer.status_code}: {answer.text[:500]}"
                )
            return np.array(answer.json()["outputs"][0]["data"], float).ravel()

        for index, values in enumerate(pool.map(ask, range(predictions))):
            if not np.allclose(values, expected[index], rtol=1e-5, atol=1e-5):
                raise WrongAnswer(f"prediction {index} is not what the model says")
    return Loads(predictions, system.model_loads(MODEL) - before, model.coef_.nbytes / 1e6)
