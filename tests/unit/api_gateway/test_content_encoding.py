"""Bodies compressed and decompressed: in any split into members and slices, within bounds."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.http import content_encoding
from services.api_gateway.http.content_encoding import Inflater, compress, inflate, window_bits
from stellwerk.wire.errors import InvalidInput, TooLarge

GZIP, DEFLATE = 31, 15
# Without the time, because workers that share a run must name its tests alike.
ABC = gzip.compress(b"abc", mtime=0)


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=6), size=st.integers(1, 300))
def test_members_give_what_was_put_into_them(parts: list[bytes], size: int) -> None:
    data = b"".join(gzip.compress(part) for part in parts)

    assert inflate(data, GZIP, 2000) == b"".join(parts)
    for step in (1, 7, len(data)):
        inflater = Inflater(GZIP)
        pieces = [
            piece
            for at in range(0, len(data), step)
            for piece in inflater.pieces(data[at : at + step], size)
        ]
        inflater.finish()
        assert b"".join(pieces) == b"".join(parts)
        assert max(map(len, pieces)) <= size


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_what_is_compressed_here_is_read_here(encoding: bytes) -> None:
    bits = window_bits(encoding.decode())
    assert bits is not None

    assert inflate(compress(b"ab" * 100_000, encoding), bits, 200_000) == b"ab" * 100_000


def test_the_bound_on_bytes_holds_over_all_members() -> None:
    member = gzip.compress(b"x" * 1000)

    assert len(inflate(member * 10, GZIP, 10_000)) == 10_000
    with pytest.raises(TooLarge):
        inflate(member * 10 + gzip.compress(b"x"), GZIP, 10_000)


def test_a_body_of_endless_empty_members_is_refused() -> None:
    empty = gzip.compress(b"")

    with pytest.raises(TooLarge, match="members"):
        inflate(empty * (content_encoding.MAX_MEMBERS + 1), GZIP, 10)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (ABC[:-1], GZIP),
        (ABC + ABC[:3], GZIP),
        (ABC + b"\0", GZIP),
        (zlib.compress(b"abc") + zlib.compress(b"abc"), DEFLATE),
        (b"abc", GZIP),
        (zlib.compress(b"abc"), GZIP),
    ],
)
def test_a_body_that_is_not_whole_is_refused(data: bytes, bits: int) -> None:
    with pytest.raises(InvalidInput):
        inflate(data, bits, 1000)
