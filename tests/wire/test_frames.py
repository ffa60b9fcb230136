"""Frames written from serialised parts are what protobuf would have written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.frames import VARINT, FrameBuffer, tag, varint

ITEMS = tag(work_pb2.WorkEnvelope, "items")
GROUPS = tag(work_pb2.WorkEnvelope, "groups")
FORM = tag(work_pb2.WorkGroup, "form")
INPUTS = tag(work_pb2.WorkItem, "inputs")


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_read_back(number: int) -> None:
    data = tag(work_pb2.WorkReply, "queue_ns", VARINT) + varint(number)

    assert work_pb2.WorkReply.FromString(data).queue_ns == number


@given(st.lists(st.binary(max_size=400), max_size=12), st.integers(1, 5), st.integers(1, 600))
def test_everything_comes_out_once_in_its_order_and_within_the_bounds(
    bodies: list[bytes], most: int, most_bytes: int
) -> None:
    buffer = FrameBuffer(ITEMS, INPUTS, most, most_bytes)
    items = [
        work_pb2.WorkItem(id=str(number), inputs=[tensor_pb2.Tensor(data=body)])
        for number, body in enumerate(bodies)
    ]
    for item in items:
        head = work_pb2.WorkItem(id=item.id)
        buffer.put((head.SerializeToString(), item.inputs[0].SerializeToString()))

    frames = []
    while parts := buffer.take():
        frames.append(work_pb2.WorkEnvelope.FromString(b"".join(parts)))

    assert [item for frame in frames for item in frame.items] == items
    assert not buffer
    for frame in frames:
        assert 1 <= len(frame.items) <= most
        assert (
            len(frame.items) == 1
            or sum(len(item.SerializeToString()) for item in frame.items) <= most_bytes
        )


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(1, 5), st.integers(20, 600))
def test_a_group_counts_as_its_members_and_is_never_divided(
    sizes: list[int], most: int, most_bytes: int
) -> None:
    """A size of 0 stands for an element that is in no group."""
    buffer = FrameBuffer(ITEMS, INPUTS, most, most_bytes, group_tag=GROUPS, group_inner_tag=FORM)
    items = [
        work_pb2.WorkItem(id=str(place), inputs=[tensor_pb2.Tensor(name="x")])
        for place, size in enumerate(sizes)
        if not size
    ]
    groups = [
        work_pb2.WorkGroup(id=str(place), timeouts_ms=range(size), form=work_pb2.WorkItem(id="f"))
        for place, size in enumerate(sizes)
        if size
    ]
    for item in items:
        head = work_pb2.WorkItem(id=item.id).SerializeToString()
        buffer.put((head, item.inputs[0].SerializeToString()))
    for group in groups:
        head = work_pb2.WorkGroup(id=group.id, timeouts_ms=group.timeouts_ms).SerializeToString()
        buffer.put((head, group.form.SerializeToString(), len(group.timeouts_ms)))

    frames = []
    while parts := buffer.take():
        frames.append(work_pb2.WorkEnvelope.FromString(b"".join(parts)))

    assert [item for frame in frames for item in frame.items] == items
    assert [group for frame in frames for group in frame.groups] == groups
    for frame in frames:
        counts = [1] * len(frame.items) + [len(group.timeouts_ms) for group in frame.groups]
        assert len(counts) == 1 or sum(counts) <= most
        assert len(counts) == 1 or frame.ByteSize() <= most_bytes + 4 * len(counts)
