"""Bodies that are nothing but the data of a model's only input."""

from __future__ import annotations

import pytest

from services.api_gateway.open_inference import raw_request
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.tensors import join_bytes


def metadata(*inputs: tuple[str, list[int]]) -> inference.ModelMetadataResponse:
    described = inference.ModelMetadataResponse()
    for number, (datatype, shape) in enumerate(inputs):
        described.inputs.add(name=f"x{number}", datatype=datatype, shape=shape)
    return described


@pytest.mark.parametrize(
    ("size", "datatype", "shape", "given"),
    [
        (16, "FP32", [4], [4]),
        (16, "FP32", [-1], [4]),
        (16, "FP32", [-1, 4], [1, 4]),
        (32, "FP32", [-1, 4], [2, 4]),
        (16, "FP32", [-1, -1], [1, 4]),
        (24, "INT16", [-1, 3, -1], [1, 3, 4]),
        (3, "BOOL", [1, -1], [1, 3]),
        (2, "BF16", [], []),
        (0, "FP32", [-1, 4], [0, 4]),
    ],
)
def test_the_open_dimension_follows_from_the_size(
    size: int, datatype: str, shape: list[int], given: list[int]
) -> None:
    body = bytes(range(size))

    [tensor] = raw_request.read(body, "m", "", metadata((datatype, shape))).work.inputs

    assert (tensor.name, tensor.datatype, list(tensor.shape), tensor.data) == (
        "x0",
        datatype,
        given,
        body,
    )


@pytest.mark.parametrize(
    ("shape", "given"), [([1], [1]), ([-1], [1]), ([-1, 1], [1, 1]), ([-1, -1], [1, 1])]
)
def test_a_body_for_bytes_is_its_one_element(shape: list[int], given: list[int]) -> None:
    [tensor] = raw_request.read(b"\xff\xd8", "m", "", metadata(("BYTES", shape))).work.inputs

    assert (list(tensor.shape), tensor.data) == (given, join_bytes([b"\xff\xd8"]))


@pytest.mark.parametrize(
    ("size", "inputs"),
    [
        (16, []),
        (16, [("FP32", [4]), ("FP32", [4])]),
        (15, [("FP32", [4])]),
        (20, [("FP32", [4])]),
        (20, [("FP32", [-1, 4])]),
        (16, [("FP32", [4, -1, -1])]),
        (16, [("FP32", [-1, -1, -1])]),
        (4, [("BYTES", [2])]),
        (4, [("FP32", [-1, 0])]),
    ],
)
def test_what_cannot_be_one_input_is_refused(
    size: int, inputs: list[tuple[str, list[int]]]
) -> None:
    with pytest.raises(InvalidInput):
        raw_request.read(b"x" * size, "m", "", metadata(*inputs))
