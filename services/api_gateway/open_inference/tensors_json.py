"""Reads tensors from the JSON of the Open Inference Protocol into raw little-endian bytes.

Strict: an element must have the type that the datatype says. JSON has no NaN and no infinity: a
floating datatype takes the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.tensors import (
    ALL_DATATYPES,
    DTYPES,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    check_text_count,
    element_count,
    join_bytes,
)

_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT_LIMITS = {
    name: (int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max))
    for name, dtype in DTYPES.items()
    if dtype.kind in "iu"
}
# The letters of `struct`, which packs strictly, by datatype; FP16 and BF16 are rounded by numpy.
_LETTERS = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
    "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP32": "f", "FP64": "d",
}  # fmt: skip
_INT, _BOOL, _STR = frozenset({int}), frozenset({bool}), frozenset({str})
_NUMBERS = frozenset({int, float})
_ELEMENT_TYPES = {name: _NUMBERS if name in _FLOATS else _INT for name in ALL_DATATYPES} | {
    "BOOL": _BOOL
}
# Elements up to which the compiled struct format is kept: 1,024 formats of small tensors fit, and
# for a large tensor compiling is cheap beside packing.
_FEW = 64
# Levels of nested data that are flattened at most: wire allows no more dimensions.
_MAX_NESTING = MAX_DIMENSIONS


def check_shape(shape: object, name: str) -> tuple[list[int], int]:
    """Returns the shape as integers and its number of elements. Raises InvalidInput."""
    if type(shape) is not list:
        raise _no_shape(name)
    bounded = 0 < len(shape) <= MAX_DIMENSIONS
    count = 1
    # Cut off, because the product of a million dimensions would take hours.
    for dimension in shape[:MAX_DIMENSIONS]:
        if type(dimension) is not int:
            raise _no_shape(name)
        count *= dimension
        bounded = bounded and 0 < dimension < MAX_ELEMENTS
    # Any other shape, such as one with a zero, goes through all checks.
    if bounded and count <= MAX_ELEMENTS:
        return shape, count
    if any(type(dimension) is not int for dimension in shape):
        raise _no_shape(name)
    if any(dimension >= 1 << 63 for dimension in shape):
        raise InvalidInput(f"tensor '{name}' has a shape with too many elements", tensor=name)
    return shape, element_count(shape, name)


def check_datatype(datatype: object, name: str) -> str:
    """Returns the datatype. Raises InvalidInput unless it is one of the protocol's."""
    if type(datatype) is not str or datatype not in ALL_DATATYPES:
        raise InvalidInput(
            f"tensor '{name}' needs a datatype, one of {', '.join(sorted(ALL_DATATYPES))}",
            tensor=name,
        )
    return datatype


def encode(name: str, datatype: object, shape: object, data: object) -> tuple[list[int], bytes]:
    """Returns a tensor's shape and its raw bytes, from data that are flat or nested as the shape.

    Raises InvalidInput.
    """
    sizes, count = check_shape(shape, name)
    known = check_datatype(datatype, name)
    if known == "BYTES":
        check_text_count(count, name)
    if type(data) is not list:
        raise InvalidInput(f"tensor '{name}' needs data: a list of its elements", tensor=name)
    types = set(map(type, data))
    if list in types:
        data = _flatten(name, sizes, data)
        types = set(map(type, data))
    if len(data) != count:
        raise InvalidInput(
            f"tensor '{name}' of shape {sizes} needs {count} elements, got {len(data)}",
            tensor=name,
            expected=count,
            got=len(data),
        )
    return sizes, _elements(name, known, data, types)


class TensorReader:
    """Reads the data of tensors of one name, datatype and shape, as `encode` does."""

    __slots__ = ("_count", "_datatype", "_name", "_pack", "_shape", "_types")

    def __init__(self, name: str, datatype: str, shape: list[int]) -> None:
        """Takes a shape and a datatype that `encode` took before."""
        self._name = name
        self._datatype = datatype
        self._shape = shape
        self._count = element_count(shape, name)
        self._types = _ELEMENT_TYPES[datatype] if datatype in _LETTERS else frozenset()
        self._pack = _packer(datatype, self._count) if datatype in _LETTERS else None

    def read(self, data: object) -> bytes:
        """Returns the raw bytes of data that are flat or nested as the shape. Raises InvalidInput.

        What is not a flat list of the right length and types goes to `encode`, which says why.
        """
        if (
            type(data) is list
            and len(data) == self._count
            and self._types.issuperset(map(type, data))
        ):
            assert self._pack is not None
            try:
                packed: bytes = self._pack(*data)
                return packed
            except (struct.error, OverflowError):
                raise _does_not_fit(self._name, self._datatype) from None
        return encode(self._name, self._datatype, self._shape, data)[1]


def _elements(name: str, datatype: str, flat: list[Any], types: set[type]) -> bytes:
    """Returns the raw bytes of flat data whose elements have these types. Raises InvalidInput."""
    if types <= _ELEMENT_TYPES[datatype] and datatype in _LETTERS:
        try:
            packed: bytes = _packer(datatype, len(flat))(*flat)
            return packed
        except (struct.error, OverflowError):
            raise _does_not_fit(name, datatype) from None
    if datatype in _FLOATS:
        return _floats(name, datatype, flat, types)
    if datatype == "BYTES":
        _only(name, datatype, types, _STR, "strings")
        return join_bytes([text.encode() for text in flat])
    _only(
        name,
        datatype,
        types,
        _ELEMENT_TYPES[datatype],
        "true and false" if datatype == "BOOL" else "whole numbers",
    )
    raise AssertionError("every datatype is packed by now")


@lru_cache(maxsize=1024)
def _small_packer(datatype: str, count: int) -> Any:
    return struct.Struct(f"<{count}{_LETTERS[datatype]}").pack


def _packer(datatype: str, count: int) -> Any:
    return (_small_packer if count <= _FEW else _small_packer.__wrapped__)(datatype, count)


def _flatten(name: str, shape: list[int], data: list[Any]) -> list[Any]:
    """Returns nested data as one list. Raises InvalidInput unless nested as the shape says."""
    depth, level = 0, data
    while level and list in set(map(type, level)):
        depth += 1
        if depth > _MAX_NESTING or set(map(type, level)) != {list}:
            raise _misshapen(name, shape)
        # All lists of a level must be as long, and the outermost as many, as the shape says.
        if (
            depth >= len(shape)
            or set(map(len, level)) != {shape[depth]}
            or (depth == 1 and len(level) != shape[0])
        ):
            raise _misshapen(name, shape)
        level = list(chain.from_iterable(level))
    if depth and depth != len(shape) - 1 and level:
        raise _misshapen(name, shape)
    return level


def _no_shape(name: str) -> InvalidInput:
    return InvalidInput(f"tensor '{name}' needs a shape: a list of whole numbers", tensor=name)


def _misshapen(name: str, shape: list[int]) -> InvalidInput:
    return InvalidInput(
        f"the data of tensor '{name}' must be flat or nested as its shape {shape} says", tensor=name
    )


def _does_not_fit(name: str, datatype: str) -> InvalidInput:
    if datatype in _FLOATS:
        return InvalidInput(f"the data of tensor '{name}' does not fit {datatype}", tensor=name)
    low, high = _INT_LIMITS[datatype]
    return InvalidInput(
        f"the data of tensor '{name}' of {datatype} must lie between {low} and {high}", tensor=name
    )


def _only(name: str, datatype: str, types: set[type], allowed: frozenset[type], words: str) -> None:
    if not types <= allowed:
        raise InvalidInput(
            f"the data of tensor '{name}' of {datatype} must be {words} only", tensor=name
        )


def _floats(name: str, datatype: str, flat: list[Any], types: set[type]) -> bytes:
    """Returns the raw bytes of floats that `struct` cannot pack: specials, FP16 and BF16."""
    special = str in types
    if special:
        flat = [_SPECIAL.get(item, item) if type(item) is str else item for item in flat]
        types = set(map(type, flat))
    _only(
        name, datatype, types, _NUMBERS, 'numbers or the strings "NaN", "Infinity" and "-Infinity"'
    )
    dtype = DTYPES["FP32" if datatype == "BF16" else datatype]
    with np.errstate(over="ignore"):
        wide = np.array(flat, dtype=np.float64)
        array = wide.astype(dtype)
    if np.isinf(array).any() and (
        not special or not np.array_equal(np.isinf(array), np.isinf(wide))
    ):
        raise _does_not_fit(name, datatype)
    return _to_bf16(array) if datatype == "BF16" else array.tobytes()


def _to_bf16(array: npt.NDArray[Any]) -> bytes:
    """Returns the upper halves of the float32 words, rounded to nearest even; NaN stays NaN."""
    words = array.view("<u4").astype(np.uint64)
    rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2").tobytes()
