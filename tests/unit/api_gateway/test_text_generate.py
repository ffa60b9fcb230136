"""The generate extension: keys of a JSON object as inputs, outputs as keys of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from services.api_gateway.generation import text_generate
from services.api_gateway.upstream.replies import ModelReply
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput


def metadata(**inputs: tuple[str, list[int]]) -> inference.ModelMetadataResponse:
    described = inference.ModelMetadataResponse()
    for name, (datatype, shape) in inputs.items():
        described.inputs.add(name=name, datatype=datatype, shape=shape)
    return described


def read(data: Any, **inputs: tuple[str, list[int]]) -> Any:
    return text_generate.read(orjson.dumps(data), "m", "2", metadata(**inputs))


@pytest.mark.parametrize(
    ("value", "shape", "given"),
    [
        (1.5, [-1], [1]),
        (1.5, [-1, 1], [1, 1]),
        (1.5, [1], [1]),
        (1.5, [], []),
        ([1.5, 2], [-1], [2]),
        ([1.5, 2], [-1, 2], [1, 2]),
        ([1.5, 2], [-1, -1], [1, 2]),
        ([1.5, 2], [-1, 1], [2, 1]),
        ([1.5], [-1, 1], [1, 1]),
        ([[1.5, 2], [3, 4]], [-1, 2], [2, 2]),
        ([[1.5, 2]], [-1, -1, -1], [1, 1, 2]),
        ([], [-1], [0]),
    ],
)
def test_a_value_takes_the_rank_of_the_models_input(
    value: Any, shape: list[int], given: list[int]
) -> None:
    [tensor] = read({"x": value}, x=("FP32", shape)).work.inputs

    assert list(tensor.shape) == given
    assert tensors.to_numpy(tensor).ravel().tolist() == np.ravel(value).tolist()


def test_text_is_one_element() -> None:
    [tensor] = read({"text_input": "hällo"}, text_input=("BYTES", [-1, 1])).work.inputs

    assert (list(tensor.shape), tensors.to_numpy(tensor).ravel().tolist()) == (
        [1, 1],
        ["hällo".encode()],
    )


def test_what_is_no_input_is_a_parameter() -> None:
    inputs = {"text_input": ("BYTES", [-1]), "max_tokens": ("INT32", [-1])}
    parameters = {"priority": 1, "temperature": 0.5, "max_tokens": 7}

    ask = read(
        {"id": "9", "text_input": "x", "parameters": parameters, "timeout": 9, "stream": True},
        **inputs,
    )

    assert (ask.model, ask.version, ask.id) == ("m", "2", "9")
    assert (ask.work.priority, ask.timeout_us) == (1, 9)
    assert [tensor.name for tensor in ask.work.inputs] == ["text_input", "max_tokens"]


def test_an_input_may_be_named_like_a_key_of_the_extension() -> None:
    ask = read({"id": 5, "parameters": 1.5}, id=("INT64", [1]), parameters=("FP64", [1]))

    assert ask.id == ""
    assert [tensor.name for tensor in ask.work.inputs] == ["id", "parameters"]


@pytest.mark.parametrize(
    "data",
    [
        [],
        "x",
        {"id": 5},
        {"parameters": []},
        {"x": None},
        {"x": {}},
        {"x": "1"},
        {"x": [1, [2]]},
        {"x": [[1], [2, 3]]},
        {"x": 1e39},
        {"stop": ["a"]},
        {"priority": "high"},
        {"parameters": {"timeout": True}},
        {"triton_x": 1},
        {"y": None},
    ],
)
def test_bad_requests_are_invalid_input(data: Any) -> None:
    with pytest.raises(InvalidInput):
        read(data, x=("FP32", [-1, -1]))


def test_outputs_are_keys_and_one_element_stands_alone() -> None:
    ask = read({"id": "9"})
    outputs = [
        tensors.from_numpy("text_output", np.array([["hi"]])),
        tensors.from_numpy("score", np.array([0.1], "<f4")),
        tensors.from_numpy("tokens", np.array([[1, 2]])),
    ]

    answer = text_generate.write(ask, ModelReply("buckets/b/models/m/versions/4", outputs, True))

    assert answer == (
        b'{"id":"9","model_name":"m","model_version":"4","text_output":"hi","score":0.1,"tokens":[1,2]}'
    )
