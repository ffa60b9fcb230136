"""The Open Inference Protocol's JSON: tensors in and out, and everything that is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inference import grpc_service_pb2 as inference
from services.api_gateway import inference_json, tensors_json
from services.wire.errors import InvalidInput, NotReady
from services.wire.tensors import DATATYPES, DTYPES, join_bytes


def body(data: Any = None, shape: Any = None, datatype: Any = "FP32", **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1] if shape is None else shape, "datatype": datatype, "data": data, **more}
    return orjson.dumps({"inputs": [tensor]})


def raw(data: Any, shape: list[int], datatype: str) -> bytes:
    return inference_json.read_request(body(data, shape, datatype), "m", "").raw_input_contents[0]


@given(arrays.arrays(st.sampled_from([d for d in DTYPES.values() if d.kind in "biu"]), arrays.array_shapes(max_dims=3)))
def test_integers_and_booleans_survive_flat_and_nested(array: Any) -> None:
    datatype = DATATYPES[array.dtype]

    assert raw(array.ravel().tolist(), list(array.shape), datatype) == array.tobytes()
    assert raw(array.tolist(), list(array.shape), datatype) == array.tobytes()


@given(
    st.sampled_from(["FP16", "FP32", "FP64"]).flatmap(
        lambda name: arrays.arrays(
            DTYPES[name], arrays.array_shapes(max_dims=3), elements={"allow_nan": False, "allow_infinity": False}
        )
    )
)
def test_finite_floats_survive_there_and_back(array: Any) -> None:
    datatype = DATATYPES[array.dtype]
    data = raw(array.tolist(), list(array.shape), datatype)
    response = inference.ModelInferResponse(raw_output_contents=[data])
    response.outputs.add(name="y", datatype=datatype, shape=array.shape)

    printed = orjson.loads(inference_json.write_response(response))["outputs"][0]["data"]

    assert data == array.tobytes()
    assert np.array(printed, dtype=array.dtype).tobytes() == array.tobytes()


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda v: abs(v) < 3e38), max_size=20)
)
def test_bf16_is_rounded_as_ml_dtypes_does(values: list[float]) -> None:
    expected = np.array(values, dtype=np.float32).astype(ml_dtypes.bfloat16).tobytes()

    assert raw(values, [len(values)], "BF16") == expected


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=5))
def test_text_survives(values: list[str]) -> None:
    data = raw(values, [len(values)], "BYTES")

    assert data == join_bytes([value.encode() for value in values])
    assert tensors_json.decode("y", "BYTES", [len(values)], data) == values


def test_float32_is_printed_as_short_as_it_was_given() -> None:
    response = inference.ModelInferResponse(raw_output_contents=[raw([1.1, 0.3], [2], "FP32")])
    response.outputs.add(name="y", datatype="FP32", shape=[2])

    assert b"[1.1,0.3]" in inference_json.write_response(response)


def test_nan_and_infinity_come_as_strings_and_leave_as_null() -> None:
    data = raw([1, "NaN", "Infinity", "-Infinity"], [4], "FP32")
    response = inference.ModelInferResponse(raw_output_contents=[data])
    response.outputs.add(name="y", datatype="FP32", shape=[4])

    assert np.frombuffer(data, "<f4").tolist()[2:] == [np.inf, -np.inf]
    assert b"[1.0,null,null,null]" in inference_json.write_response(response)


def test_empty_tensors_have_no_data() -> None:
    assert raw([], [0], "FP32") == b""
    assert raw([[], []], [2, 0], "INT64") == b""
    assert raw([3], [], "INT64") == (3).to_bytes(8, "little")


@pytest.mark.parametrize(
    "request_body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"inputs":[]}',
        b'{"inputs":{}}',
        b'{"inputs":[1]}',
        b'{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}',
        b'{"id":5,"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}',
        body([1], shape=None, id=1, name=""),
        body([1], shape="1"),
        body([1], shape=[1.0]),
        body([1], shape=[True]),
        body([1], shape=[-1]),
        body([], shape=[2**40, 2**40, 0]),
        body([], shape=[2**32, 2**32]),
        body([], shape=[2**63]),
        body([], shape=[1] * 33),
        body([1], datatype="FLOAT"),
        body([1], datatype=None),
        body([1], datatype=["FP32"]),
        body(None),
        body("1"),
        body({"0": 1}),
        body([1, 2]),
        body([]),
        body([1, [2]], shape=[2]),
        body([[1, 2], [3]], shape=[2, 2]),
        body([[1, 2, 3, 4]], shape=[2, 2]),
        body([[1], [2]], shape=[2]),
        body([[[1]], [[2]]], shape=[2, 1]),
        body([None]),
        body(["1"]),
        body([True]),
        body([1e39]),
        body([1e39, "Infinity"], shape=[2]),
        body([70000], datatype="FP16"),
        body([1e39], datatype="BF16"),
        body([1.0], datatype="INT32"),
        body([1.5], datatype="INT32"),
        body([True], datatype="INT32"),
        body(["1"], datatype="INT32"),
        body([300], datatype="UINT8"),
        body([-1], datatype="UINT64"),
        body([2**63], datatype="INT64"),
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[99999999999999999999999]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}',
        body([1], datatype="BOOL"),
        body([1], datatype="BYTES"),
        body([1], parameters=[]),
        body([1], parameters={"a": None}),
        body([1], parameters={"a": {}}),
        body([1], parameters={"binary_data_size": 4}),
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":{}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":["y"]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":"x"}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 900 + b"]" * 900 + b"}]}",
    ],
)
def test_bad_requests_are_invalid_input(request_body: bytes) -> None:
    with pytest.raises(InvalidInput):
        inference_json.read_request(request_body, "m", "")


def test_parameters_outputs_and_id_are_passed_on() -> None:
    request = inference_json.read_request(
        orjson.dumps(
            {
                "id": "7",
                "parameters": {
                    "method": "score",
                    "n": 3,
                    "big": 2**63,
                    "f": 0.5,
                    "b": True,
                    "binary_data_output": True,
                },
                "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}],
                "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
            }
        ),
        "m",
        "3",
    )

    assert (request.model_name, request.model_version, request.id) == ("m", "3", "7")
    assert inference_json.plain_parameters(request.parameters) == {
        "method": "score", "n": 3, "big": 2**63, "f": 0.5, "b": True
    }  # fmt: skip
    assert [output.name for output in request.outputs] == ["y"]
    assert not request.outputs[0].parameters


def test_an_id_is_answered_only_if_one_was_given() -> None:
    assert b'"id"' not in inference_json.write_response(inference.ModelInferResponse(model_name="m"))
    assert b'"id":"7"' in inference_json.write_response(inference.ModelInferResponse(id="7"))


def test_bytes_that_are_no_text_have_no_json_form() -> None:
    with pytest.raises(NotReady):
        tensors_json.decode("y", "BYTES", [1], join_bytes([b"\xff"]))
