"""Requests of the Open Inference Protocol over REST: tensors as JSON and as binary data, and all
that is refused.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.api_gateway.open_inference import infer_request, infer_response
from services.api_gateway.open_inference.infer_request import AS_JSON
from services.api_gateway.upstream.replies import ModelReply
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput, NotImplementedHere, NotReady
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.tensors import DATATYPES, DTYPES, join_bytes


def body(data: Any = None, shape: Any = None, datatype: Any = "FP32", **more: Any) -> bytes:
    tensor = {
        "name": "x",
        "shape": [1] if shape is None else shape,
        "datatype": datatype,
        "data": data,
        **more,
    }
    return orjson.dumps({"inputs": [tensor]})


def raw(data: Any, shape: list[int], datatype: str) -> bytes:
    request, _ = infer_request.read_request(body(data, shape, datatype), "m", "")
    return request.work.inputs[0].data


def printed(data: bytes, datatype: str, shape: list[int]) -> bytes:
    output = tensor_pb2.Tensor(name="y", datatype=datatype, shape=shape, data=data)
    request = InferRequest("m", "", "", work_pb2.WorkItem())
    return infer_response.write_response(
        request, AS_JSON, ModelReply("buckets/b/models/m/versions/1", [output], True)
    ).body


@given(
    arrays.arrays(
        st.sampled_from([d for d in DTYPES.values() if d.kind in "biu"]),
        arrays.array_shapes(max_dims=3),
    )
)
def test_integers_and_booleans_survive_flat_and_nested(array: Any) -> None:
    datatype = DATATYPES[array.dtype]

    assert raw(array.ravel().tolist(), list(array.shape), datatype) == array.tobytes()
    assert raw(array.tolist(), list(array.shape), datatype) == array.tobytes()


@given(
    st.sampled_from(["FP16", "FP32", "FP64"]).flatmap(
        lambda name: arrays.arrays(
            DTYPES[name],
            arrays.array_shapes(max_dims=3),
            elements={"allow_nan": False, "allow_infinity": False},
        )
    )
)
def test_finite_floats_survive_there_and_back(array: Any) -> None:
    datatype = DATATYPES[array.dtype]
    data = raw(array.tolist(), list(array.shape), datatype)

    answered = orjson.loads(printed(data, datatype, list(array.shape)))["outputs"][0]["data"]

    assert data == array.tobytes()
    assert np.array(answered, dtype=array.dtype).tobytes() == array.tobytes()


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda v: abs(v) < 3e38),
        max_size=20,
    )
)
def test_bf16_is_rounded_as_ml_dtypes_does(values: list[float]) -> None:
    expected = np.array(values, dtype=np.float32).astype(ml_dtypes.bfloat16).tobytes()

    assert raw(values, [len(values)], "BF16") == expected


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=5))
def test_text_survives(values: list[str]) -> None:
    data = raw(values, [len(values)], "BYTES")

    assert data == join_bytes([value.encode() for value in values])
    assert infer_response.decode("y", "BYTES", [len(values)], data) == values


def test_float32_is_printed_as_short_as_it_was_given() -> None:
    assert b"[1.1,0.3]" in printed(raw([1.1, 0.3], [2], "FP32"), "FP32", [2])


def test_nan_and_infinity_come_as_strings_and_leave_as_null() -> None:
    data = raw([1, "NaN", "Infinity", "-Infinity"], [4], "FP32")

    assert np.frombuffer(data, "<f4").tolist()[2:] == [np.inf, -np.inf]
    assert b"[1.0,null,null,null]" in printed(data, "FP32", [4])


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
        body(parameters={"binary_data_size": 4}),
        body([1], shape=[1] * 65),
        body([1], shape=[2**62] * 300_000),
        body([1], shape=[1] * 65 + ["1"]),
        body([1], shape=[-(2**63), -(2**63)]),
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]},'
        b'{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"priority":"high"}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"priority":true}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"timeout":-1}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"timeout":1.5}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"triton_x":1}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"binary_data_output":1}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"sequence_id":0.5}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],'
        b'"outputs":[{"name":"y","parameters":{"binary_data":"yes"}}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],'
        b'"outputs":[{"name":"y","parameters":{"classification":-1}}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":{}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":["y"]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"parameters":"x"}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":'
        + b"[" * 900
        + b"]" * 900
        + b"}]}",
    ],
)
def test_bad_requests_are_invalid_input(request_body: bytes) -> None:
    with pytest.raises(InvalidInput):
        infer_request.read_request(request_body, "m", "")


def test_parameters_outputs_and_id_are_passed_on() -> None:
    request, form = infer_request.read_request(
        orjson.dumps(
            {
                "id": "7",
                "parameters": {
                    "method": "score",
                    "priority": 2,
                    "timeout": 5000,
                    "sequence_id": "a",
                    "unknown": 0.5,
                    "binary_data_output": True,
                },
                "inputs": [
                    {
                        "name": "x",
                        "shape": [1],
                        "datatype": "FP32",
                        "data": [1],
                        "parameters": {"a": "b"},
                    }
                ],
                "outputs": [
                    {"name": "y", "parameters": {"binary_data": False, "classification": 3}},
                    {"name": "z"},
                ],
            }
        ),
        "m",
        "3",
    )

    assert (request.model, request.version, request.id, request.timeout_us) == ("m", "3", "7", 5000)
    assert (request.work.method, request.work.priority, list(request.work.outputs)) == (
        "score",
        2,
        ["y", "z"],
    )
    assert dict(request.classes) == {"y": 3}
    assert (form.binary, dict(form.outputs)) == (True, {"y": False})


def test_no_outputs_and_an_empty_list_of_them_are_all_of_them() -> None:
    one = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}

    request, form = infer_request.read_request(
        orjson.dumps({"inputs": [one], "outputs": []}), "m", ""
    )

    assert not request.work.outputs
    assert form is AS_JSON


def test_bytes_that_are_no_text_have_no_json_form() -> None:
    with pytest.raises(NotReady):
        infer_response.decode("y", "BYTES", [1], join_bytes([b"\xff"]))


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_shared_memory_is_not_offered(field: str) -> None:
    one = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    shared = {**one, "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}}

    with pytest.raises(NotImplementedHere):
        infer_request.read_request(orjson.dumps({"inputs": [one], field: [shared]}), "m", "")


TENSORS = st.lists(
    st.tuples(
        arrays.arrays(
            st.sampled_from(list(DTYPES.values())), arrays.array_shapes(max_dims=3, min_side=0)
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def binary_body(tensors: list[tuple[Any, bool]]) -> tuple[bytes, int]:
    """A body of these tensors, those marked as binary data behind the JSON, and the length of the
    JSON.
    """
    inputs, rest = [], b""
    for number, (array, binary) in enumerate(tensors):
        one: dict[str, Any] = {
            "name": f"x{number}",
            "shape": array.shape,
            "datatype": DATATYPES[array.dtype],
        }
        if binary:
            one["parameters"] = {"binary_data_size": array.nbytes}
            rest += array.tobytes()
        else:
            specials = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
            flat = array.ravel().tolist()
            one["data"] = [specials.get(str(v), v) if isinstance(v, float) else v for v in flat]
        inputs.append(one)
    text = orjson.dumps({"inputs": inputs})
    return text + rest, len(text)


@given(TENSORS)
def test_binary_and_json_inputs_mix(tensors: list[tuple[Any, bool]]) -> None:
    data, json_size = binary_body(tensors)

    request, _ = infer_request.read_request(data, "m", "", json_size)

    assert [list(tensor.shape) for tensor in request.work.inputs] == [
        list(array.shape) for array, _ in tensors
    ]
    for tensor, (array, _) in zip(request.work.inputs, tensors, strict=True):
        assert np.array_equal(
            np.frombuffer(tensor.data, array.dtype).reshape(array.shape),
            array,
            equal_nan=array.dtype.kind == "f",
        )


@given(TENSORS, st.integers(-20, 20).filter(bool))
def test_too_few_and_too_many_bytes_are_refused(tensors: list[tuple[Any, bool]], off: int) -> None:
    data, json_size = binary_body(tensors)
    data = data + b"x" * off if off > 0 else data[: max(json_size, len(data) + off)]
    if len(data) == json_size:
        return

    with pytest.raises(InvalidInput):
        infer_request.read_request(data, "m", "", json_size)


BINARY = {"name": "x", "shape": [2], "datatype": "FP32"}


@pytest.mark.parametrize(
    "given",
    [
        {"binary_data_size": 4},
        {"binary_data_size": -8},
        {"binary_data_size": 8.0},
        {"binary_data_size": "8"},
        {"binary_data_size": True},
        {"binary_data_size": 1 << 62},
    ],
)
def test_sizes_that_lie_are_refused(given: dict[str, Any]) -> None:
    text = orjson.dumps({"inputs": [{**BINARY, "parameters": given}]})

    with pytest.raises(InvalidInput):
        infer_request.read_request(text + b"01234567", "m", "", len(text))


def test_binary_data_of_an_unknown_datatype_is_refused() -> None:
    text = orjson.dumps(
        {"inputs": [{**BINARY, "datatype": "FLOAT", "parameters": {"binary_data_size": 8}}]}
    )

    with pytest.raises(InvalidInput):
        infer_request.read_request(text + b"01234567", "m", "", len(text))


@pytest.mark.parametrize("header", [b"", b"-1", b"x", b"1.0", b"\xb2", b"11", b"9" * 5000])
def test_a_header_that_is_no_length_of_the_body_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidInput):
        infer_request.json_size_of(header, b"0123456789")


def test_a_json_that_is_cut_off_by_its_length_is_refused() -> None:
    text = body([1])

    with pytest.raises(InvalidInput):
        infer_request.read_request(text, "m", "", len(text) - 1)
