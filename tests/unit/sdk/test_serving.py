"""What an owner wants of a model's serving, in the SDK's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stellwerk.client.errors import InvalidInput
from stellwerk.client.resources.serving import serving_policy
from stellwerk.type.v1.serving_pb2 import ServingPolicy
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

SIGNATURE = [
    MethodSignature(method="predict", inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 2])])
]


@pytest.mark.parametrize(
    "wishes",
    [
        {"max_batch_size": 32, "preferred_batch_sizes": [8, 16], "response_cache": True},
        {"max_batch_size": "32", "preferred_batch_sizes": "8+16", "response_cache": "yes"},
        ServingPolicy(max_batch_size=32, preferred_batch_sizes=[8, 16], response_cache=True),
    ],
)
def test_wishes_come_as_words_as_text_or_whole(wishes: Any) -> None:
    policy = serving_policy(wishes, None, SIGNATURE)

    assert policy == ServingPolicy(
        max_batch_size=32, preferred_batch_sizes=[8, 16], response_cache=True
    )


def test_no_wish_is_no_policy() -> None:
    assert serving_policy(None, None, SIGNATURE) is None
    assert serving_policy({}, None, SIGNATURE) is None


def test_rows_to_warm_up_with_are_of_the_models_own_type() -> None:
    policy = serving_policy(None, [[1, 2]], SIGNATURE)

    assert policy is not None
    (call,) = policy.warmup
    assert (call.method, call.inputs[0].datatype, list(call.inputs[0].shape)) == (
        "predict",
        "FP32",
        [1, 2],
    )
    assert call.inputs[0].data == np.array([[1, 2]], np.float32).tobytes()


@pytest.mark.parametrize(
    "wishes",
    [
        {"batch": 1},
        {"max_batch_size": "many"},
        {"response_cache": "perhaps"},
        {"priority_levels": None},
    ],
)
def test_what_means_nothing_is_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        serving_policy(wishes, None, SIGNATURE)
