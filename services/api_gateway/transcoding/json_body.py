"""Parses a body as JSON, within bounds on its parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from stellwerk.wire.errors import InvalidInput, TooLarge


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most parts of a body: a byte of JSON can take a hundred bytes of memory once parsed."""

    # Objects and lists.
    containers: int
    keys: int
    elements: int


# For tensors: a flat list of 2^23 numbers takes about 64 MiB of JSON, the largest body by default.
TENSORS = Bounds(containers=1 << 20, keys=1 << 20, elements=1 << 23)
# For bodies that are put into a message field by field, which costs about a microsecond a part.
FIELDS = Bounds(containers=1 << 18, keys=1 << 18, elements=1 << 20)
# Bytes of a body from which its parts are counted: a smaller one is parsed within 25 MB.
_COUNTED_FROM_BYTES = 256 * 1024


def parse(body: bytes | memoryview, bounds: Bounds = TENSORS) -> Any:
    """Returns the JSON value in a body.

    Raises InvalidInput that says where the JSON breaks off, and TooLarge beyond the bounds.
    """
    if len(body) >= _COUNTED_FROM_BYTES:
        _check_parts(bytes(body), bounds)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(
            f"the body is not JSON: it breaks off at line {exc.lineno}, column {exc.colno}",
            line=exc.lineno,
        ) from None


def _check_parts(body: bytes, bounds: Bounds) -> None:
    """Raises TooLarge for a body with more parts than `bounds`.

    Counts the characters that begin a part, also those inside texts: at a gigabyte a second, where
    telling texts apart would take as long as parsing.
    """
    parts = {
        "lists and objects": (body.count(b"[") + body.count(b"{"), bounds.containers),
        "keys": (body.count(b":"), bounds.keys),
        "elements": (body.count(b","), bounds.elements),
    }
    for what, (count, most) in parts.items():
        if count > most:
            raise TooLarge(
                f"the body has {count} {what}, at most {most} are taken; send tensors flat, or as"
                " bytes"
            )
