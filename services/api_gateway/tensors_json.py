"""Tensors between the JSON of the Open Inference Protocol and raw little-endian bytes.

Strict: an element must have the type that the datatype says. JSON has no NaN and no infinity: as input a floating
datatype takes the strings "NaN", "Infinity" and "-Infinity"; as output they are null.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from services.wire.errors import InvalidInput, NotReady
from services.wire.tensors import ALL_DATATYPES, DTYPES, element_count, join_bytes, split_bytes

_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT_LIMITS = {
    name: (int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max))
    for name, dtype in DTYPES.items()
    if dtype.kind in "iu"
}
# How far nested data is flattened at most; wire allows no more dimensions.
_MAX_NESTING = 32
JsonArray = npt.NDArray[Any] | list[str] | list[float | None]


def check_shape(shape: object, name: str) -> tuple[list[int], int]:
    """A shape as integers and its number of elements. Raises InvalidInput."""
    if not isinstance(shape, list) or any(type(dimension) is not int for dimension in shape):
        raise InvalidInput(f"tensor '{name}' needs a shape: a list of whole numbers", tensor=name)
    if any(dimension >= 1 << 63 for dimension in shape):
        raise InvalidInput(f"tensor '{name}' has a shape with too many elements", tensor=name)
    return shape, element_count(shape, name)


def encode(name: str, datatype: object, shape: list[int], count: int, data: object) -> bytes:
    """The raw bytes of a tensor's data, which is flat or nested as its shape. Raises InvalidInput."""
    if not isinstance(datatype, str) or datatype not in ALL_DATATYPES:
        raise InvalidInput(f"tensor '{name}' needs a datatype, one of {', '.join(sorted(ALL_DATATYPES))}", tensor=name)
    if not isinstance(data, list):
        raise InvalidInput(f"tensor '{name}' needs data: a list of its elements", tensor=name)
    flat = _flatten(name, shape, data)
    if len(flat) != count:
        raise InvalidInput(
            f"tensor '{name}' of shape {shape} needs {count} elements, got {len(flat)}",
            tensor=name,
            expected=count,
            got=len(flat),
        )
    types = set(map(type, flat))
    if datatype in _FLOATS:
        return _floats(name, datatype, flat, types)
    if datatype == "BYTES":
        _only(name, datatype, types, {str}, "strings")
        return join_bytes([text.encode() for text in flat])
    if datatype == "BOOL":
        _only(name, datatype, types, {bool}, "true and false")
        return np.array(flat, dtype=np.bool_).tobytes()
    _only(name, datatype, types, {int}, "whole numbers")
    return _integers(name, datatype, flat)


def decode(name: str, datatype: str, shape: list[int], raw: bytes) -> JsonArray:
    """The elements of an output as something orjson prints with OPT_SERIALIZE_NUMPY, flat."""
    if datatype == "BYTES":
        try:
            return [item.decode() for item in split_bytes(raw, element_count(shape, name), name)]
        except UnicodeDecodeError:
            raise NotReady(
                f"output '{name}' holds bytes that are no UTF-8 text and so have no JSON form; call over gRPC",
                tensor=name,
            ) from None
    if datatype == "BF16":
        widened = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return widened.view("<f4")
    return np.frombuffer(raw, dtype=DTYPES[datatype])


def _flatten(name: str, shape: list[int], data: list[Any]) -> list[Any]:
    """Nested data as one list; nesting must be that of the shape, at every level."""
    depth, level = 0, data
    while level and list in set(map(type, level)):
        depth += 1
        if depth > _MAX_NESTING or set(map(type, level)) != {list}:
            raise _misshapen(name, shape)
        # A level's lists must all be as long as the shape says, and there must be as many as it says.
        if depth >= len(shape) or set(map(len, level)) != {shape[depth]} or (depth == 1 and len(level) != shape[0]):
            raise _misshapen(name, shape)
        level = list(chain.from_iterable(level))
    if depth and depth != len(shape) - 1 and level:
        raise _misshapen(name, shape)
    return level


def _misshapen(name: str, shape: list[int]) -> InvalidInput:
    return InvalidInput(f"the data of tensor '{name}' must be flat or nested as its shape {shape} says", tensor=name)


def _only(name: str, datatype: str, types: set[type], allowed: set[type], words: str) -> None:
    if not types <= allowed:
        raise InvalidInput(f"the data of tensor '{name}' of {datatype} must be {words} only", tensor=name)


def _integers(name: str, datatype: str, flat: list[int]) -> bytes:
    try:
        return np.array(flat, dtype=DTYPES[datatype]).tobytes()
    except OverflowError:
        low, high = _INT_LIMITS[datatype]
        raise InvalidInput(
            f"the data of tensor '{name}' of {datatype} must lie between {low} and {high}", tensor=name
        ) from None


def _floats(name: str, datatype: str, flat: list[Any], types: set[type]) -> bytes:
    special = str in types
    if special:
        flat = [_SPECIAL.get(item, item) if type(item) is str else item for item in flat]
        types = set(map(type, flat))
    _only(name, datatype, types, {int, float}, 'numbers or the strings "NaN", "Infinity" and "-Infinity"')
    dtype = DTYPES["FP32" if datatype == "BF16" else datatype]
    with np.errstate(over="ignore"):
        wide = np.array(flat, dtype=np.float64)
        array = wide.astype(dtype)
    if np.isinf(array).any() and (not special or not np.array_equal(np.isinf(array), np.isinf(wide))):
        raise InvalidInput(f"the data of tensor '{name}' does not fit {datatype}", tensor=name)
    return _to_bf16(array) if datatype == "BF16" else array.tobytes()


def _to_bf16(array: npt.NDArray[Any]) -> bytes:
    """The upper halves of the float32 words, rounded to nearest even; NaN stays NaN."""
    words = array.view("<u4").astype(np.uint64)
    rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2").tobytes()
