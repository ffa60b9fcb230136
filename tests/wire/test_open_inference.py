"""Both request forms become tensors exactly, or are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stellwerk.inference.v2 import grpc_service_pb2 as oip
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import classification, open_inference, tensors
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.open_inference import CONTENTS

InferInput = oip.ModelInferRequest.InferInputTensor


def inputs_of(request: oip.ModelInferRequest) -> list[tensor_pb2.Tensor]:
    return list(open_inference.read(request).work.inputs)


def parameter(value: bool | int | float | str) -> oip.InferParameter:
    if isinstance(value, bool):
        return oip.InferParameter(bool_param=value)
    if isinstance(value, int):
        return oip.InferParameter(int64_param=value)
    return (
        oip.InferParameter(double_param=value)
        if isinstance(value, float)
        else oip.InferParameter(string_param=value)
    )


def typed_input(array: np.ndarray[Any, Any], datatype: str) -> InferInput:
    given = InferInput(name="x", datatype=datatype, shape=array.shape)
    getattr(given.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return given


@pytest.mark.parametrize(
    "datatype", [name for name in CONTENTS if name not in ("BYTES", "FP32", "FP64")]
)
@given(data=st.data())
def test_typed_and_raw_integers_are_the_same(datatype: str, data: st.DataObject) -> None:
    dtype = tensors.DTYPES[datatype]
    array = data.draw(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    )

    typed = inputs_of(oip.ModelInferRequest(inputs=[typed_input(array, datatype)]))
    raw = inputs_of(
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype=datatype, shape=array.shape)],
            raw_input_contents=[array.tobytes()],
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
            inputs=[
                InferInput(name="x", datatype="FP32", shape=[1], contents={"fp32_contents": [1]})
            ],  # type: ignore[arg-type]
            raw_input_contents=[b"1234"],
        ),
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype="FP32", shape=[1])], raw_input_contents=[b"", b""]
        ),
        oip.ModelInferRequest(
            inputs=[
                InferInput(name="x", datatype="FP32", shape=[1], contents={"int_contents": [1]})
            ]  # type: ignore[arg-type]
        ),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP16", shape=[0])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FLOAT", shape=[0])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[2])]),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[-1])]),
        oip.ModelInferRequest(
            inputs=[InferInput(name="x", datatype="FP32", shape=[2**40, 2**40, 0])]
        ),
        oip.ModelInferRequest(inputs=[InferInput(name="x", datatype="FP32", shape=[1] * 65)]),
        oip.ModelInferRequest(
            inputs=[
                InferInput(name="x", datatype="INT8", shape=[1], contents={"int_contents": [300]})
            ]  # type: ignore[arg-type]
        ),
    ],
)
def test_requests_that_lie_are_refused(request_: oip.ModelInferRequest) -> None:
    with pytest.raises(InvalidInput):
        inputs_of(request_)


@pytest.mark.parametrize(
    ("datatype", "most"),
    [("INT64", open_inference.MAX_TYPED), ("FP32", open_inference.MAX_TYPED), ("BYTES", 1 << 20)],
)
def test_more_elements_than_are_read_one_by_one_are_refused(datatype: str, most: int) -> None:
    given = InferInput(name="x", datatype=datatype, shape=[most + 1])

    with pytest.raises(InvalidInput, match=r"raw|fewer rows"):
        open_inference.read(oip.ModelInferRequest(inputs=[given]))


def test_parameters_go_where_they_belong() -> None:
    request = oip.ModelInferRequest(
        id="7",
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name="y")],
        parameters={
            "method": parameter("transform"),
            "priority": oip.InferParameter(uint64_param=2),
            "timeout": parameter(200_000),
            "sequence_id": parameter("s1"),
            "sequence_start": parameter(True),
            "triton_enable_empty_final_response": parameter(True),
            "somebody's own": parameter(1.5),
        },
    )
    request.outputs[0].parameters["classification"].int64_param = 3

    ask = open_inference.read(request)

    assert (ask.work.method, ask.work.priority, ask.timeout_us, ask.empty_final) == (
        "transform",
        2,
        200_000,
        True,
    )
    assert (ask.id, list(ask.work.outputs), dict(ask.classes)) == ("7", ["y"], {"y": 3})
    assert open_inference.read(oip.ModelInferRequest()).work.method == "predict"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", True),
        ("priority", "high"),
        ("priority", -1),
        ("priority", True),
        ("priority", 1.0),
        ("timeout", -5),
        ("timeout", "1s"),
        ("sequence_id", 1.5),
        ("sequence_start", 1),
        ("triton_secret", 1),
    ],
)
def test_parameters_of_the_wrong_kind_are_refused(
    name: str, value: bool | int | float | str
) -> None:
    with pytest.raises(InvalidInput):
        open_inference.read(oip.ModelInferRequest(parameters={name: parameter(value)}))


def test_an_answer_is_raw_and_says_which_version_gave_it() -> None:
    ask = open_inference.read(oip.ModelInferRequest(model_name="team:iris", id="9"))
    tensor = tensors.from_numpy("y", np.array([[0.5, 0.25]], np.float32))

    answer = open_inference.write(ask, "buckets/team/models/iris/versions/12", [tensor])

    assert (answer.model_name, answer.model_version, answer.id) == ("team:iris", "12", "9")
    assert answer.raw_output_contents == [tensor.data]
    assert not answer.outputs[0].HasField("contents")


@given(
    arrays=st.lists(
        st.sampled_from(
            [
                np.array([[0.5, 0.25]], np.float32),
                np.zeros((0, 3), np.int64),
                np.arange(99),
                np.array(["a", "long" * 99], dtype=object),
            ]
        ),
        max_size=4,
    ),
    classes=st.sampled_from([None, {"y0": 1}]),
    id=st.text(max_size=3),
)
def test_an_answer_is_the_same_however_it_is_serialised(
    arrays: list[np.ndarray[Any, Any]], classes: dict[str, int] | None, id: str
) -> None:
    ask = open_inference.read(oip.ModelInferRequest(model_name="iris", id=id))
    ask.classes = classes
    outputs = [tensors.from_numpy(f"y{at}", array) for at, array in enumerate(arrays)]
    version = "buckets/team/models/iris/versions/12"

    def told(write: Callable[..., Any]) -> Any:
        try:
            return write(ask, version, outputs)
        except InvalidInput as error:
            return str(error)

    written, serialised = told(open_inference.write), told(open_inference.serialise)
    assert serialised == (written if isinstance(written, str) else written.SerializeToString())


@pytest.mark.parametrize(
    ("array", "count", "shape", "classes"),
    [
        (
            np.array([[0.1, 0.7, 0.2], [3, 1, 2]], np.float32),
            2,
            [2, 2],
            ["0.700000:1", "0.200000:2", "3.000000:0", "2.000000:2"],
        ),
        (np.array([5, 5, 9], np.uint8), 3, [3], ["9:2", "5:0", "5:1"]),
        (np.array([[1.0, 2.0]], np.float64), 9, [1, 2], ["2.000000:1", "1.000000:0"]),
        (np.array([[[1], [2]]], np.int64), 1, [1, 2, 1], ["1:0", "2:0"]),
    ],
)
def test_classes_are_the_best_ones_first(
    array: np.ndarray[Any, Any], count: int, shape: list[int], classes: list[str]
) -> None:
    best = classification.best(tensors.from_numpy("y", array), count)

    assert (best.datatype, list(best.shape)) == ("BYTES", shape)
    assert [item.decode() for item in tensors.to_numpy(best).ravel()] == classes


@pytest.mark.parametrize("array", [np.array([b"a"], object), np.array(1.0), np.zeros((2, 0))])
def test_what_cannot_be_ordered_has_no_classes(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidInput):
        classification.best(tensors.from_numpy("y", array), 1)
