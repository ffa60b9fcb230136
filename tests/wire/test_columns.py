"""Groups of calls: joined, taken apart and cut, they say what their members say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns, tensors
from stellwerk.wire.errors import InvalidInput

_FIXED = sorted(tensors.ITEM_SIZES)


@st.composite
def works(draw: Any) -> list[work_pb2.WorkItem]:
    """Works of one form, with data of their own."""
    specs = [
        (
            f"input-{index}",
            draw(st.sampled_from(_FIXED)),
            draw(st.lists(st.integers(1, 3), max_size=3)),
        )
        for index in range(draw(st.integers(1, 3)))
    ]
    outputs = draw(st.lists(st.sampled_from(["a", "b"]), unique=True))
    priority = draw(st.integers(0, 3))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        work = work_pb2.WorkItem(method="predict", outputs=outputs, priority=priority)
        for name, datatype, shape in specs:
            size = int(np.prod(shape, dtype=int)) * tensors.ITEM_SIZES[datatype]
            data = draw(st.binary(min_size=size, max_size=size))
            work.inputs.add(name=name, datatype=datatype, shape=shape, data=data)
        found.append(work)
    return found


@given(works())
def test_members_of_a_group_are_the_works_it_was_joined_from(
    given: list[work_pb2.WorkItem],
) -> None:
    form = columns.join(given)

    columns.check(form, len(given))
    assert [columns.member(form, index, len(given)) for index in range(len(given))] == given
    assert {columns.form_of(work) for work in given} == {columns.form_of(form)}


@given(works(), st.data())
def test_a_cut_group_holds_the_picked_members_in_their_order(
    given: list[work_pb2.WorkItem], data: Any
) -> None:
    members = data.draw(st.lists(st.sampled_from(range(len(given))), min_size=1, unique=True))
    form = columns.pick(columns.join(given), members, len(given))

    assert form == columns.join([given[index] for index in members])


@given(st.lists(st.lists(st.binary(max_size=5), min_size=2, max_size=2), min_size=1, max_size=5))
def test_texts_are_shared_out_by_their_own_lengths(rows: list[list[bytes]]) -> None:
    reply = work_pb2.WorkReply(runtime="r", rows=1)
    joined = b"".join(tensors.join_bytes(row) for row in rows)
    reply.outputs.add(name="label", datatype="BYTES", shape=[1, 2], data=joined)

    for index, row in enumerate(rows):
        [output] = columns.member_reply(reply, index, len(rows)).outputs
        assert output.data == tensors.join_bytes(row)


def test_a_reply_that_leads_reports_one_call_whoever_takes_it_apart() -> None:
    reply = work_pb2.WorkReply(leads=True, batch_rows=3)

    assert [columns.member_reply(reply, index, 3).leads for index in range(3)] == [1, 0, 0]
    assert not columns.pick_reply(reply, (1, 2), 3).leads


def test_an_error_is_every_members() -> None:
    reply = work_pb2.WorkReply(runtime="r", error=work_pb2.WorkError(reason="OVERLOADED"))

    assert columns.member_reply(reply, 1, 3) == reply


@pytest.mark.parametrize(
    ("count", "shape", "size", "column"),
    [
        (2, [1, 4], 31, ()),
        (2, [1, 4], 16, ()),
        (2, [1, -4], 32, ()),
        (0, [1, 4], 32, ()),
        (columns.MAX_MEMBERS + 1, [1, 4], 16 * (columns.MAX_MEMBERS + 1), ()),
        (2, [1, 4], 32, (1,)),
        (2, [1, 0], 0, ()),
    ],
)
def test_a_group_that_does_not_add_up_is_refused(
    count: int, shape: list[int], size: int, column: tuple[int, ...]
) -> None:
    form = work_pb2.WorkItem(method="predict")
    form.inputs.add(name="x", datatype="FP32", shape=shape, data=bytes(size))

    with pytest.raises(InvalidInput):
        columns.check(form, count, column)


def test_a_group_without_inputs_or_with_texts_is_refused() -> None:
    texts = work_pb2.WorkItem()
    texts.inputs.add(name="x", datatype="BYTES", shape=[1], data=tensors.join_bytes([b"a", b"b"]))

    for form in (work_pb2.WorkItem(), texts):
        with pytest.raises(InvalidInput):
            columns.check(form, 2)


@pytest.mark.parametrize("data", [b"\x01\0\0\0a\x02\0\0\0", b"\x01\0\0\0", b"\x00" * 9])
def test_outputs_that_cannot_be_shared_out_are_refused(data: bytes) -> None:
    reply = work_pb2.WorkReply()
    reply.outputs.add(name="label", datatype="BYTES", shape=[1], data=data)

    with pytest.raises(InvalidInput):
        columns.member_reply(reply, 0, 2)


def joins(work: work_pb2.WorkItem) -> bool:
    return columns.may_join(work, [tensor.data for tensor in work.inputs])


def test_streams_texts_and_large_calls_travel_alone() -> None:
    small = work_pb2.WorkItem(method="predict")
    small.inputs.add(name="x", datatype="FP32", shape=[1, 4], data=bytes(16))
    stream = work_pb2.WorkItem(stream=True, inputs=small.inputs)
    large = work_pb2.WorkItem()
    large.inputs.add(name="x", datatype="UINT8", shape=[16385], data=bytes(16385))
    texts = work_pb2.WorkItem()
    texts.inputs.add(name="x", datatype="BYTES", shape=[1], data=tensors.join_bytes([b"a"]))

    half_empty = work_pb2.WorkItem(inputs=[*small.inputs, {"name": "y", "datatype": "FP64"}])

    assert joins(small)
    assert not any(map(joins, (stream, large, texts, half_empty, work_pb2.WorkItem())))


def test_a_work_whose_data_are_of_another_length_travels_alone() -> None:
    for size in (12, 20, 0):
        work = work_pb2.WorkItem()
        work.inputs.add(name="x", datatype="FP32", shape=[1, 4], data=bytes(size))
        assert not joins(work)


def test_a_work_of_a_million_dimensions_travels_alone_at_once() -> None:
    work = work_pb2.WorkItem()
    work.inputs.add(name="x", datatype="FP32", shape=[2**62] * 1_000_000, data=bytes(16))

    assert not joins(work)
