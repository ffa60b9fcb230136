"""Tensors as bytes: what goes in comes out, and nothing inconsistent gets past the edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stellwerk.type.v1.tensor_pb2 import Tensor, TensorSpec
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput

_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
_FIXED = sorted(tensors.DTYPES)


@st.composite
def _arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = tensors.DTYPES[draw(st.sampled_from(_FIXED))]
    return draw(hnp.arrays(dtype, draw(_SHAPES)))


@given(_arrays())
def test_an_array_survives_the_way_there_and_back(array: np.ndarray) -> None:
    back = tensors.to_numpy(tensors.from_numpy("x", array))

    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


@given(_arrays())
def test_memory_order_and_byte_order_of_an_array_do_not_show(array: np.ndarray) -> None:
    plain = tensors.from_numpy("x", array)

    assert tensors.from_numpy("x", np.asfortranarray(array)).data == plain.data
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert tensors.from_numpy("x", swapped) == plain
    if array.ndim:
        assert (
            tensors.from_numpy("x", array[::-1]).data == np.ascontiguousarray(array[::-1]).tobytes()
        )


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_elements_of_bytes_survive_the_way_there_and_back(items: list[bytes]) -> None:
    data = tensors.join_bytes(items)

    assert tensors.split_bytes(data, len(items)) == items
    tensor = Tensor(name="x", datatype="BYTES", shape=[len(items)], data=data)
    assert list(tensors.to_numpy(tensor)) == items


@given(st.lists(st.text(max_size=10), min_size=1, max_size=6))
def test_text_becomes_utf8_bytes(items: list[str]) -> None:
    tensor = tensors.from_numpy("x", np.array(items, dtype=object))

    assert tensor.datatype == "BYTES"
    assert [item.decode() for item in tensors.to_numpy(tensor)] == items


@given(st.binary(max_size=40), st.integers(0, 6))
def test_bytes_that_do_not_hold_the_elements_are_refused_and_never_misread(
    data: bytes, count: int
) -> None:
    try:
        items = tensors.split_bytes(data, count)
    except InvalidInput:
        return
    assert tensors.join_bytes(items) == data
    assert len(items) == count


@given(st.lists(st.binary(max_size=3), max_size=4), st.binary(max_size=3), st.integers(-1, 1))
def test_elements_are_counted_as_they_are_taken_out(
    items: list[bytes], behind: bytes, more: int
) -> None:
    data, count = tensors.join_bytes(items) + behind, max(0, len(items) + more)
    try:
        tensors.split_bytes(data, count)
    except InvalidInput:
        with pytest.raises(InvalidInput):
            tensors.check(Tensor(name="x", datatype="BYTES", shape=[count], data=data))
    else:
        assert tensors.check(Tensor(name="x", datatype="BYTES", shape=[count], data=data)) == count


def test_elements_of_bytes_are_so_many_at_most() -> None:
    count = tensors.MAX_TEXTS + 1

    with pytest.raises(InvalidInput, match="fewer rows"):
        tensors.check(Tensor(name="x", datatype="BYTES", shape=[count], data=bytes(4 * count)))


def test_bf16_is_widened_exactly() -> None:
    values = np.array([1.0, -2.5, 0.0, 3.0e38], dtype="<f4")
    words = (values.view("<u4") >> 16).astype("<u2")

    back = tensors.to_numpy(Tensor(name="x", datatype="BF16", shape=[2, 2], data=words.tobytes()))

    assert back.shape == (2, 2)
    assert back.dtype == np.float32
    assert list(back.ravel()[:3]) == [1.0, -2.5, 0.0]


@given(
    st.sampled_from([*_FIXED, "BF16"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(-9, 9).filter(lambda n: n),
)
def test_data_of_another_length_than_the_shape_asks_for_is_refused(
    datatype: str, shape: list[int], off: int
) -> None:
    right = int(np.prod(shape)) * tensors.ITEM_SIZES[datatype]
    tensor = Tensor(name="x", datatype=datatype, shape=shape, data=bytes(max(right + off, 0)))

    if len(tensor.data) == right:
        assert tensors.check(tensor) == int(np.prod(shape))
    else:
        with pytest.raises(InvalidInput) as refused:
            tensors.check(tensor)
        assert refused.value.metadata == {
            "tensor": "x",
            "expected": str(right),
            "got": str(len(tensor.data)),
        }


@pytest.mark.parametrize(
    "shape",
    [
        [-1],
        [2, -1],
        [2**63 - 1, 2**63 - 1],
        [2**40, 2**40, 0],
        [0, 2**62],
        [2**32, 2**32],
        [1] * 33,
    ],
)
def test_shapes_that_lie_are_refused_even_without_data(shape: list[int]) -> None:
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(InvalidInput):
            tensors.check(Tensor(name="x", datatype=datatype, shape=shape))


@pytest.mark.parametrize("datatype", ["", "fp32", "STRING", "FP128", "INT64 ", "F" * 10_000])
def test_an_unknown_datatype_is_refused_with_those_that_are_known(datatype: str) -> None:
    with pytest.raises(InvalidInput, match="BF16, BOOL, BYTES") as refused:
        tensors.check(Tensor(name="x", datatype=datatype, shape=[0]))
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    "array",
    [
        np.array([1j]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([(1,)], dtype=[("a", "i4")]),
        [object()],
        [1.5, None],
    ],
)
def test_what_no_datatype_stands_for_is_refused(array: object) -> None:
    with pytest.raises(InvalidInput):
        tensors.from_numpy("x", array)  # type: ignore[arg-type]


_SIGNATURE = [
    TensorSpec(name="rows", datatype="FP64", shape=[-1, 3]),
    TensorSpec(name="threshold", datatype="FP32", shape=[]),
]


def _inputs(**changes: Tensor | None) -> list[Tensor]:
    given = {
        "rows": tensors.from_numpy("rows", np.zeros((5, 3))),
        "threshold": tensors.from_numpy("threshold", np.float32(0.5)),
        **changes,
    }
    return [tensor for tensor in given.values() if tensor is not None]


def test_inputs_of_the_signature_are_accepted_in_any_order() -> None:
    tensors.check_against(_inputs(), _SIGNATURE)
    tensors.check_against(_inputs()[::-1], _SIGNATURE)
    tensors.check_against(_inputs(rows=tensors.from_numpy("rows", np.zeros((0, 3)))), _SIGNATURE)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (
            _inputs(threshold=None),
            "input 'threshold' is missing; the model takes 'rows', 'threshold'",
        ),
        (_inputs(extra=tensors.from_numpy("extra", [1.0])), "the model has no input 'extra'"),
        ([*_inputs(), _inputs()[0]], "given twice"),
        (
            _inputs(rows=tensors.from_numpy("rows", np.zeros((5, 3), "f4"))),
            "must be FP64, got FP32",
        ),
        (
            _inputs(rows=tensors.from_numpy("rows", np.zeros((5, 4)))),
            r"must have the shape \[-1, 3\], got \[5, 4\]",
        ),
        (
            _inputs(rows=tensors.from_numpy("rows", np.zeros(3))),
            r"must have the shape \[-1, 3\], got \[3\]",
        ),
        (
            _inputs(rows=Tensor(name="rows", datatype="FP64", shape=[5, 3])),
            "needs 120 bytes of data, got 0",
        ),
    ],
)
def test_inputs_that_miss_the_signature_are_refused_with_what_is_wrong(
    inputs: list[Tensor], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        tensors.check_against(inputs, _SIGNATURE)
