"""Compresses and decompresses bodies: gzip, alias x-gzip, and deflate (RFC 9110, 8.4.1). Pure.

Decompression is bounded by bytes and by gzip members, so that a small body cannot fill the memory
or keep a thread busy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from stellwerk.wire.errors import InvalidInput, TooLarge, UnsupportedEncoding

# zlib's window bits by content coding. 31: gzip. 15: zlib's own format, which HTTP calls deflate.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_GZIP = _WINDOW_BITS["gzip"]
# Codings for responses, the preferred one first.
_OFFERED = ((b"gzip", b"x-gzip"), (b"deflate",))
_REFUSED = (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
# zlib level 1 is five times as fast as the usual 6 and two thirds as good on JSON of numbers.
_LEVEL = 1
# Bytes of compressed input given to zlib at once. At the end of a gzip member zlib copies what is
# left of its input, so a larger slice would make bodies of many members quadratic.
_SLICE = 16 * 1024
# Bytes of decompressed output that are counted at once.
_PIECE = 64 * 1024
# gzip members of a body that is read whole. A member costs about 2 µs however small it is; block
# gzip with its members of 64 KiB stays a thousand times below.
MAX_MEMBERS = 1 << 16


def response_encoding(accept_encoding: bytes) -> bytes | None:
    """Returns the coding for a response: gzip before deflate, None if the caller takes neither."""
    accepted = {}
    for item in accept_encoding.lower().split(b","):
        name, _, weight = item.partition(b";")
        accepted[name.strip()] = weight.replace(b" ", b"") not in _REFUSED
    for names in _OFFERED:
        named = [accepted[name] for name in names if name in accepted]
        if any(named) or (not named and accepted.get(b"*", False)):
            return names[0]
    return None


def compress(body: bytes, encoding: bytes) -> bytes:
    """Returns the body in a coding that `response_encoding` gave."""
    return zlib.compress(body, _LEVEL, _WINDOW_BITS[encoding.decode()])


def window_bits(content_encoding: str) -> int | None:
    """Returns zlib's window bits for a Content-Encoding value, None for a body that is not encoded.

    Raises UnsupportedEncoding for any other coding, and for several codings one over the other.
    """
    codings = [coding.strip() for coding in content_encoding.lower().split(",")]
    applied = [coding for coding in codings if coding not in ("", "identity")]
    if not applied:
        return None
    if len(applied) > 1 or applied[0] not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            "a body may be compressed with gzip or deflate, with nothing else"
        )
    return _WINDOW_BITS[applied[0]]


class Inflater:
    """Decompresses one body by slices. A gzip body may have several members (RFC 1952, 2.2)."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._stream = zlib.decompressobj(bits)
        # Whether the current member has had any input.
        self._begun = False
        self.members = 1

    def pieces(self, data: bytes, size: int) -> Iterator[bytes]:
        """Yields what `data` decompresses to, in pieces of at most `size` bytes.

        Raises InvalidInput for data that is not in the coding, or goes on after its end.
        """
        for start in range(0, len(data), _SLICE):
            rest = data[start : start + _SLICE]
            while rest:
                if self._stream.eof:
                    self._next_member()
                self._begun = True
                try:
                    yield self._stream.decompress(rest, size)
                except zlib.error:
                    raise InvalidInput(
                        "the body is not compressed as its Content-Encoding says"
                    ) from None
                rest = self._stream.unconsumed_tail or self._stream.unused_data

    def finish(self) -> None:
        """Raises InvalidInput unless the input ended where a member ends, or there was none."""
        if self._begun and not self._stream.eof:
            raise InvalidInput("the compressed body breaks off before its end")

    def _next_member(self) -> None:
        if self._bits != _GZIP:
            raise InvalidInput("the compressed body goes on after its end")
        self._stream = zlib.decompressobj(self._bits)
        self.members += 1


def inflate(data: bytes, bits: int, limit: int) -> bytes:
    """Returns the decompressed body. Raises TooLarge if it has more than `limit` bytes.

    Counts first and keeps nothing, so that a decompression bomb costs no memory.
    """
    counter, size = Inflater(bits), 0
    for piece in counter.pieces(data, _PIECE):
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        if counter.members > MAX_MEMBERS:
            raise TooLarge(f"the body has more than {MAX_MEMBERS} gzip members")
    counter.finish()
    if counter.members > 1:
        return b"".join(Inflater(bits).pieces(data, _PIECE))
    return zlib.decompress(data, wbits=bits, bufsize=max(1, size))


def too_large(limit: int) -> TooLarge:
    """Returns the error for a body of more than `limit` bytes."""
    return TooLarge(
        f"the body is larger than {limit} bytes, the most that is taken here", limit=limit
    )
