"""Both request forms become tensors exactly, or are refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference import grpc_service_pb2 as oip
from services.router import instances
from services.router.inference import CONTENTS, inputs_of, method_of
from services.wire import tensors
from services.wire.errors import InvalidInput
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

InferInput = oip.ModelInferRequest.InferInputTensor


def typed_input(array: np.ndarray[Any, Any], datatype: str) -> InferInput:
    given = InferInput(name="x", datatype=datatype, shape=array.shape)
    getattr(given.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return given


@pytest.mark.parametrize("datatype", [name for name in CONTENTS if name not in ("BYTES", "FP32", "FP64")])
@given(data=st.data())
def test_typed_and_raw_integers_are_the_same(datatype: str, data: st.DataObject) -> None:
    dtype = tensors.DTYPES[datatype]
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))

    typed = inputs_of(oip.ModelInferRequest(inputs=[typed_input(array, datatype)]))
    raw = inputs_of(
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype=datatype, shape=array.shape)], raw_input_contents=[array.tobytes()]
        )
    )

    assert typed == raw
    assert np.array_equal(tensors.to_numpy(typed[0]), array)


def test_bytes_elements_come_through() -> None:
    request = oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="BYTES", shape=[2])])
    request.inputs[0].contents.bytes_contents.extend([b"", b"\xff\x00"])

    assert tensors.to_numpy(inputs_of(request)[0]).tolist() == [b"", b"\xff\x00"]


@pytest.mark.parametrize(
    "request_",
    [
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype="FP32", shape=[1], contents={"fp32_contents": [1]})],  # type: ignore[arg-type]
            raw_input_contents=[b"1234"],
        ),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[1])], raw_input_contents=[b"", b""]),
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype="FP32", shape=[1], contents={"int_contents": [1]})]  # type: ignore[arg-type]
        ),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP16", shape=[0])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FLOAT", shape=[0])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[2])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[-1])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[2**40, 2**40, 0])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[1] * 65)]),
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype="INT8", shape=[1], contents={"int_contents": [300]})]  # type: ignore[arg-type]
        ),
    ],
)
def test_requests_that_lie_are_refused(request_: oip.ModelInferRequest) -> None:
    with pytest.raises(InvalidInput):
        inputs_of(request_)


def test_the_method_is_a_string_parameter() -> None:
    assert method_of(oip.ModelInferRequest()) == "predict"
    named = oip.ModelInferRequest(parameters={"method": oip.InferParameter(string_param="transform")})
    assert method_of(named) == "transform"
    with pytest.raises(InvalidInput):
        method_of(oip.ModelInferRequest(parameters={"method": oip.InferParameter(bool_param=True)}))


def rows(value: list[Any]) -> struct_pb2.ListValue:
    return json_format.ParseDict(value, struct_pb2.ListValue())


def signature(*datatypes: str) -> MethodSignature:
    specs = [TensorSpec(name=f"x{n}", datatype=datatype, shape=[-1, 2]) for n, datatype in enumerate(datatypes)]
    return MethodSignature(method="predict", inputs=specs)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP64", [[1.5, 2.0]]),
        ("INT8", [[1, -2]]),
        ("BOOL", [[True, False]]),
        ("BYTES", [["a", "ß"]]),
        ("FP32", []),
    ],
)
def test_rows_come_in_and_go_out_unchanged(datatype: str, value: list[Any]) -> None:
    tensor = instances.to_tensor(rows(value), signature(datatype))

    assert tensor.datatype == datatype
    assert json_format.MessageToDict(instances.from_tensor(tensor)) == value


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP64", [["a"]]),
        ("FP64", [[1], [1, 2]]),
        ("FP64", [[None]]),
        ("FP64", [{"a": 1}]),
        ("INT8", [[1.5]]),
        ("INT8", [[1000]]),
        ("BOOL", [[1]]),
        ("BYTES", [[1]]),
        ("BF16", [[1]]),
    ],
)
def test_rows_that_do_not_fit_are_refused(datatype: str, value: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        instances.to_tensor(rows(value), signature(datatype))


def test_rows_need_a_model_with_one_input() -> None:
    with pytest.raises(InvalidInput, match="one input"):
        instances.to_tensor(rows([[1]]), signature("FP32", "FP32"))


def test_numbers_that_json_lacks_become_null() -> None:
    tensor = tensors.from_numpy("y", np.array([1.0, np.nan, np.inf]))

    assert json_format.MessageToDict(instances.from_tensor(tensor)) == [1.0, None, None]
