"""An envelope written by hand is what protobuf would have written, as far as a reader can tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.dispatch.sender import encode
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.frames import varint


@given(
    key=st.text(max_size=200),
    items=st.lists(
        st.tuples(st.text(max_size=20), st.integers(0, 40_000), st.integers(1, 2**40)), max_size=8
    ),
)
def test_a_reader_finds_the_key_and_every_item_with_its_timeout(
    key: str, items: list[tuple[str, int, int]]
) -> None:
    made = [
        work_pb2.WorkItem(id=id, method="m", outputs=["x" * size], timeout_ms=5)
        for id, size, _ in items
    ]

    body = encode(
        key, [(item.SerializeToString(), ms) for item, (_, _, ms) in zip(made, items, strict=True)]
    )

    for item, (_, _, ms) in zip(made, items, strict=True):
        item.timeout_ms = min(ms, 2**32 - 1)
    assert work_pb2.WorkEnvelope.FromString(body) == work_pb2.WorkEnvelope(key=key, items=made)


@given(number=st.integers(0, 2**64 - 1))
def test_a_varint_holds_seven_bits_a_byte_and_marks_all_but_the_last(number: int) -> None:
    written = varint(number)

    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(written)) == number
    assert [byte >= 0x80 for byte in written] == [True] * (len(written) - 1) + [False]
    assert len(written) == 1 or written[-1] != 0
