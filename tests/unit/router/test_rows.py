"""Plain rows become tensors exactly, or are refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2

from services.router.calls.rows import from_tensor, to_tensor
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput


def rows(value: list[Any]) -> struct_pb2.ListValue:
    return json_format.ParseDict(value, struct_pb2.ListValue())


def signature(*datatypes: str) -> MethodSignature:
    specs = [
        TensorSpec(name=f"x{n}", datatype=datatype, shape=[-1, 2])
        for n, datatype in enumerate(datatypes)
    ]
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
    tensor = to_tensor(rows(value), signature(datatype))

    assert tensor.datatype == datatype
    assert json_format.MessageToDict(from_tensor(tensor)) == value


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
        to_tensor(rows(value), signature(datatype))


def test_rows_need_a_model_with_one_input() -> None:
    with pytest.raises(InvalidInput, match="one input"):
        to_tensor(rows([[1]]), signature("FP32", "FP32"))


def test_numbers_that_json_lacks_become_null() -> None:
    tensor = tensors.from_numpy("y", np.array([1.0, np.nan, np.inf]))

    assert json_format.MessageToDict(from_tensor(tensor)) == [1.0, None, None]
