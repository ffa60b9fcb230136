"""Stacking and slicing: every caller gets its own rows back, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.execution.batch_call import stack_inputs
from services.runtime.requests.output_columns import (
    check_rows,
    row_offsets,
    select_outputs,
    sliceable_column,
    whole_column,
)
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput, ModelFailed
from tests.fakes.work import Inbox

NUMBERS = sorted(tensors.DTYPES)
counts = st.lists(st.integers(1, 5), min_size=1, max_size=12)
trailings = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def filled(datatype: str, shape: tuple[int, ...], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if datatype == "BYTES":
        array = np.empty(shape, dtype=object)
        array.flat = [rng.bytes(int(rng.integers(0, 5))) for _ in range(array.size)]
        return array
    return rng.integers(0, 2, shape).astype(tensors.DTYPES[datatype]) * (seed % 100 + 1)


@given(counts, trailings, st.sampled_from([*NUMBERS, "BYTES"]))
def test_stacked_and_sliced_again_each_has_its_own(
    rows: list[int], trailing: tuple[int, ...], datatype: str
) -> None:
    inbox = Inbox()
    arrays = [filled(datatype, (count, *trailing), seed) for seed, count in enumerate(rows)]
    requests = [inbox.request(array) for array in arrays]

    stacked = stack_inputs(requests[0].layout, requests)["x"]
    made = sliceable_column("x", stacked)

    np.testing.assert_array_equal(stacked, np.concatenate(arrays))
    assert made.datatype == requests[0].item.inputs[0].datatype
    ends = row_offsets(requests)
    for request, start, stop in zip(requests, ends, ends[1:], strict=False):
        assert made.slice_rows(start, stop) == request.item.inputs[0].data


def test_all_inputs_of_a_layout_are_stacked_in_the_same_order() -> None:
    inbox = Inbox()
    requests = [inbox.request(np.full((2, 1), n), np.full((2,), -n)) for n in range(3)]

    stacked = stack_inputs(requests[0].layout, requests)

    assert stacked["x0"].ravel().tolist() == [0, 0, 1, 1, 2, 2]
    assert stacked["x1"].tolist() == [0, 0, -1, -1, -2, -2]


def test_bfloat16_is_widened() -> None:
    inbox = Inbox()
    requests = [inbox.request(np.zeros((1, 1), np.float32)) for _ in range(2)]
    item = requests[0].item
    item.inputs[0].datatype, item.inputs[0].data = "BF16", b"\xc0\x3f"  # 1.5
    again = [inbox.layouts.admit(item, inbox.message()) for _ in range(2)]

    stacked = stack_inputs(again[0].layout, again)["x"]

    assert stacked.dtype == np.float32 and stacked.tolist() == [[1.5], [1.5]]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4)[:, ::2],
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.array([["a", "bcd"], ["", "é"], ["x", "y"]]),
        np.zeros((3, 0)),
        np.array([True, False, True]),
    ],
)
def test_any_layout_is_cut_as_it_would_travel_alone(array: Any) -> None:
    made = sliceable_column("y", array)

    for start, stop in ((0, 1), (1, 3), (0, 3), (2, 2)):
        assert made.slice_rows(start, stop) == tensors.from_numpy("y", array[start:stop]).data


def test_a_whole_output_keeps_any_shape() -> None:
    assert whole_column("y", np.array(1.5)).shape == ()
    assert whole_column("y", np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert whole_column("y", np.array([b"ab"], dtype=object)).data == b"\2\0\0\0ab"


def test_what_no_tensor_can_carry_is_refused() -> None:
    for array in (
        np.array([1 + 2j]),
        np.array([None]),
        np.array(["2024-01-01"], dtype="datetime64[D]"),
    ):
        with pytest.raises(InvalidInput):
            sliceable_column("y", array)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros(()), np.zeros((0, 2))])
def test_another_number_of_rows_is_the_models_failure(array: Any) -> None:
    with pytest.raises(ModelFailed, match="rows for 2 in output 'y'"):
        check_rows({"y": array}, 2)


def test_outputs_come_as_asked_for() -> None:
    answer = {"y": np.zeros(1), "z": np.ones(1)}

    assert list(select_outputs(answer, ["z", "y"])) == ["z", "y"]
    assert list(select_outputs(answer, [])) == ["y", "z"]
    with pytest.raises(InvalidInput, match="gives y, z"):
        select_outputs(answer, ["w"])
