"""The decoupled conformance model for Stellwerk: an estimator whose predict is a generator, stored
as a pickle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stellwerk.conformance.models.definitions import MAGIC, MODELS, Spec
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec


class CountUp:
    """Turns COUNT, INT32 of shape [1], into INDEX 0, 1, … COUNT - 1 of the same datatype
    and shape.
    """

    def predict(self, count: Any) -> Iterator[Any]:
        """Yields one response for each number; for 13 two, then raises an error."""
        wanted = int(np.asarray(count).ravel()[0])
        for index in range(2 if wanted == MAGIC else wanted):
            yield np.array([index], np.int32)
        if wanted == MAGIC:
            raise ValueError("the model fails on 13")


def signature() -> MethodSignature:
    """Returns the input and the output of the method predict."""
    model = MODELS["count_up"]
    inputs, outputs = ([_spec(spec) for spec in specs] for specs in (model.inputs, model.outputs))
    return MethodSignature(method="predict", inputs=inputs, outputs=outputs, decoupled=True)


def _spec(spec: Spec) -> TensorSpec:
    return TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape)
