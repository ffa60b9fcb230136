"""Data to tensors and back: what is taken, what is refused, and that no value changes on the
way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from stellwerk.client.arrays import from_tensors, to_tensor, to_tensors
from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec
from stellwerk.wire import tensors


def spec(datatype: str, *shape: int, name: str = "X", columns: Any = ()) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, columns=columns)


def value(tensor: Any) -> Any:
    return tensors.to_numpy(tensor)


@given(
    nps.arrays(
        st.sampled_from(
            [np.dtype(t) for t in ("?", "i1", "i8", "u2", "f2", "f4", "f8", ">f8", ">i4")]
        ),
        nps.array_shapes(min_dims=0, max_dims=4, min_side=0),
    )
)
def test_any_array_comes_back_as_it_went(array: Any) -> None:
    back = from_tensors([to_tensor(array, TensorSpec(name="X"))])

    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.text()))
def test_texts_come_back_as_they_went(texts: list[str]) -> None:
    assert (
        from_tensors([to_tensor(np.array(texts, dtype=object), spec("BYTES", -1))]).tolist()
        == texts
    )


@given(nps.arrays(np.int64, (3, 2)), st.sampled_from(["INT8", "INT32", "UINT8", "UINT64"]))
def test_whole_numbers_are_never_cut(array: Any, datatype: str) -> None:
    try:
        sent = value(to_tensor(array, spec(datatype, -1, 2)))
    except InvalidInput:
        return
    np.testing.assert_array_equal(sent, array)


def test_whole_numbers_become_floats_but_not_the_other_way() -> None:
    assert value(to_tensor([[1, 2]], spec("FP64", -1, 2))).tolist() == [[1.0, 2.0]]
    assert value(to_tensor(np.array([[1.5, 2]]), spec("FP32", -1, 2))).dtype == np.float32
    with pytest.raises(InvalidInput, match="astype"):
        to_tensor([[1.5, 2.0]], spec("INT64", -1, 2))
    with pytest.raises(InvalidInput, match="beyond INT8"):
        to_tensor([[300, 1]], spec("INT8", -1, 2))
    with pytest.raises(InvalidInput, match="takes text"):
        to_tensor([1.5], spec("BYTES", -1))


def test_shapes_that_do_not_fit_are_explained() -> None:
    with pytest.raises(InvalidInput, match="single row"):
        to_tensor([1.0, 2.0], spec("FP64", -1, 2))
    with pytest.raises(InvalidInput, match=r"must have the shape"):
        to_tensor([[1.0, 2.0, 3.0]], spec("FP64", -1, 2))
    with pytest.raises(InvalidInput, match="same length"):
        to_tensor([[1.0], [1.0, 2.0]], spec("FP64", -1, 2))


def test_a_single_column_may_be_flat_or_a_series() -> None:
    flat = to_tensor(pd.Series([1.0, 2.0]), spec("FP64", -1, 1))
    target = to_tensor(np.array([[1], [2]]), spec("INT64", -1, name="y"))

    assert list(flat.shape) == [2, 1]
    assert list(target.shape) == [2]


def test_columns_are_put_in_the_models_order() -> None:
    frame = pd.DataFrame({"b": [2.0], "a": [1]})
    wanted = spec("FP64", -1, 2, columns=["a", "b"])

    assert value(to_tensor(frame, wanted)).tolist() == [[1.0, 2.0]]
    with pytest.raises(InvalidInput, match="columns missing: a"):
        to_tensor(frame[["b"]], wanted)
    with pytest.raises(InvalidInput, match="does not take: c"):
        to_tensor(frame.assign(c=3), wanted)


def test_a_model_with_several_inputs_takes_a_frame_or_a_dict() -> None:
    signature = MethodSignature(
        method="predict",
        inputs=[spec("BYTES", -1, 1, name="city"), spec("FP64", -1, 1, name="size")],
    )
    frame = pd.DataFrame({"size": [1, 2], "city": ["Basel", "Chur"]})

    for data in (frame, {"size": [1, 2], "city": ["Basel", "Chur"]}):
        city, size = to_tensors(data, signature)
        assert value(city).tolist() == [[b"Basel"], [b"Chur"]]
        assert value(size).tolist() == [[1.0], [2.0]]
    with pytest.raises(InvalidInput, match="2 inputs"):
        to_tensors([[1, 2]], signature)
    with pytest.raises(InvalidInput, match="inputs missing: city"):
        to_tensors({"size": [1]}, signature)


def test_score_takes_its_target_beside_the_features() -> None:
    signature = MethodSignature(
        method="score", inputs=[spec("FP64", -1, 2), spec("INT64", -1, name="y")]
    )

    features, target = to_tensors([[1, 2]], signature, [0])

    assert (features.name, target.name, value(target).tolist()) == ("X", "y", [0])


def test_several_outputs_come_back_by_name() -> None:
    outputs = [
        tensors.from_numpy("label", np.array([1])),
        tensors.from_numpy("p", np.array([[0.5]])),
    ]

    found = from_tensors(outputs)

    assert set(found) == {"label", "p"}
    assert found["p"].shape == (1, 1)


def test_torch_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")

    assert value(to_tensor(torch.ones(1, 2, requires_grad=True), spec("FP32", -1, 2))).tolist() == [
        [1.0, 1.0]
    ]
