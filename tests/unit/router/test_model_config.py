"""A model's configuration says what is true of it: shapes, batching, how it answers."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from services.router.open_inference.model_config import config_of, described_signature
from stellwerk.inference.v2 import model_config_pb2 as messages
from stellwerk.repository.v1.repository_service_pb2 import ModelVersion
from stellwerk.type.v1.serving_pb2 import ServingPolicy
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec
from stellwerk.wire.tensors import ALL_DATATYPES


def signature(
    method: str = "predict", shape: tuple[int, ...] = (-1, 4), **fields: Any
) -> MethodSignature:
    inputs = [TensorSpec(name="X", datatype="FP64", shape=shape)]
    outputs = [TensorSpec(name="y", datatype="INT64", shape=shape[:1])]
    return MethodSignature(method=method, inputs=inputs, outputs=outputs, **fields)


def version(*signatures: MethodSignature, **fields: Any) -> ModelVersion:
    values: dict[str, Any] = {"format": "skops", "version": 3, "sha256": "ab", **fields}
    return ModelVersion(signature=signatures or [signature()], **values)


def test_an_estimator_is_batched_and_its_shapes_lack_the_batch() -> None:
    config = config_of("team:iris", version())

    assert (config.name, config.platform, config.backend) == ("team:iris", "skops", "skops")
    assert config.max_batch_size == 256
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("X", messages.TYPE_FP64, [4])
    ]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("y", messages.TYPE_INT64, [])
    ]
    assert config.parameters["methods"].string_value == "predict"
    assert not config.model_transaction_policy.decoupled
    assert not config.response_cache.enable


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"format": "onnx"}, 0),
        ({"format": "onnx", "format_options": {"batching": "rows"}}, 256),
        ({"format_options": {"batching": "off"}}, 0),
        ({"serving": ServingPolicy(max_batch_size=1)}, 0),
        ({"format": "onnx", "serving": ServingPolicy(max_batch_size=32)}, 32),
    ],
)
def test_who_is_not_joined_has_whole_shapes_and_no_batching(
    fields: dict[str, Any], rows: int
) -> None:
    config = config_of("iris", version(**fields))

    assert config.max_batch_size == rows
    assert list(config.input[0].dims) == ([4] if rows else [-1, 4])
    assert config.HasField("dynamic_batching") is bool(rows)


def test_a_fixed_first_dimension_is_no_batch() -> None:
    config = config_of(
        "iris", version(signature(shape=(8, 4)), serving=ServingPolicy(max_batch_size=64))
    )

    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [8, 4]


def test_the_owners_policy_is_shown_in_the_protocols_units() -> None:
    policy = ServingPolicy(
        max_batch_size=64,
        preferred_batch_sizes=[8, 16],
        max_queue_delay_us=500,
        max_queue_size=100,
        priority_levels=3, default_timeout_ms=250, response_cache=True,
    )  # fmt: skip

    config = config_of("iris", version(serving=policy))

    batching = config.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == (
        [8, 16],
        500,
    )
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    queue = batching.default_queue_policy
    assert (
        queue.default_timeout_microseconds,
        queue.max_queue_size,
        queue.allow_timeout_override,
    ) == (
        250_000,
        100,
        True,
    )
    assert config.response_cache.enable


def test_predict_stands_for_the_model_and_else_its_first_method() -> None:
    two = version(signature("transform"), signature("predict", decoupled=True))

    assert described_signature(two).method == "predict"
    assert config_of("iris", two).model_transaction_policy.decoupled
    assert (
        described_signature(version(signature("transform"), signature("score"))).method
        == "transform"
    )
    assert list(config_of("iris", ModelVersion(format="skops")).input) == []


def test_every_datatype_has_a_type() -> None:
    for datatype in ALL_DATATYPES:
        specs = [TensorSpec(name="x", datatype=datatype, shape=[2])]
        config = config_of(
            "m", ModelVersion(signature=[MethodSignature(method="predict", inputs=specs)])
        )

        assert config.input[0].data_type != messages.TYPE_INVALID
    assert (
        json_format.MessageToDict(config_of("m", version()))["input"][0]["dataType"] == "TYPE_FP64"
    )
