"""Tensors as bytes: the datatypes of the Open Inference Protocol, as numpy arrays and checked.

Layout: row-major, little-endian, no padding; a BYTES element is a 4-byte little-endian length and
its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput

Array = npt.NDArray[np.generic]

MAX_DIMENSIONS = 32
# Elements. No tensor in memory has more, so a shape with more is refused before its data is read.
MAX_ELEMENTS = 1 << 40
# Elements of a BYTES tensor: each process walks them one by one, so their number is bounded.
MAX_TEXTS = 1 << 20
DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES: dict[np.dtype[np.generic], str] = {dtype: name for name, dtype in DTYPES.items()}
# BF16 travels as raw two-byte words: numpy has no such type.
ITEM_SIZES: dict[str, int] = {**{name: dtype.itemsize for name, dtype in DTYPES.items()}, "BF16": 2}
_LENGTH = struct.Struct("<I").unpack_from
ALL_DATATYPES = frozenset(ITEM_SIZES) | {"BYTES"}


def element_count(shape: Sequence[int], name: str = "") -> int:
    """Returns the number of elements of a shape; `name` is the tensor's, for the error.

    Raises InvalidInput for more than 32 dimensions, a negative one, or more than 2^40 elements.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(
            f"tensor '{name}' has {len(shape)} dimensions, at most {MAX_DIMENSIONS} are allowed",
            tensor=name,
        )
    if any(dimension < 0 for dimension in shape):
        raise InvalidInput(
            f"tensor '{name}' has a negative dimension; say how many elements there are",
            tensor=name,
        )
    # Dimensions of 0 count as 1 here, so [2**40, 2**40, 0] is refused though it has no elements.
    if math.prod(max(dimension, 1) for dimension in shape) > MAX_ELEMENTS:
        raise InvalidInput(f"tensor '{name}' has a shape with too many elements", tensor=name)
    return math.prod(shape)


def data_of(given: Iterable[tensor_pb2.Tensor]) -> list[bytes]:
    """Returns each tensor's data, to be read once: a message gives a copy whenever it is asked."""
    return [tensor.data for tensor in given]


def check(tensor: tensor_pb2.Tensor) -> int:
    """Returns the number of elements. Raises InvalidInput unless datatype, shape and data agree."""
    if tensor.datatype not in ALL_DATATYPES:
        raise InvalidInput(
            f"tensor '{tensor.name}' has the unknown datatype '{tensor.datatype[:32]}'; "
            f"known are {', '.join(sorted(ALL_DATATYPES))}",
            tensor=tensor.name,
        )
    count = element_count(tensor.shape, tensor.name)
    data = tensor.data
    if tensor.datatype == "BYTES":
        check_text_count(count, tensor.name)
        if not _holds_texts(data, count):
            raise _no_texts(tensor.name, count)
        return count
    expected = count * ITEM_SIZES[tensor.datatype]
    if len(data) != expected:
        raise InvalidInput(
            f"tensor '{tensor.name}' of {tensor.datatype} {list(tensor.shape)} needs {expected}"
            f" bytes of data, got {len(data)}",
            tensor=tensor.name,
            expected=expected,
            got=len(data),
        )
    return count


def check_text_count(count: int, name: str = "") -> None:
    """Raises InvalidInput if `count` elements are too many for a BYTES tensor."""
    if count > MAX_TEXTS:
        raise InvalidInput(
            f"tensor '{name}' of BYTES has {count} elements, at most {MAX_TEXTS} are taken; send"
            " fewer rows at a time",
            tensor=name,
            limit=MAX_TEXTS,
        )


def split_bytes(data: bytes | memoryview, count: int, name: str = "") -> list[bytes]:
    """Returns the elements of a BYTES tensor.

    Raises InvalidInput unless the data holds exactly `count` of them.
    """
    items: list[bytes] = []
    view, offset = memoryview(data), 0
    while offset + 4 <= len(view) and len(items) < count:
        (length,) = struct.unpack_from("<I", view, offset)
        offset += 4
        if offset + length > len(view):
            break
        items.append(bytes(view[offset : offset + length]))
        offset += length
    if len(items) != count or offset != len(view):
        raise _no_texts(name, count)
    return items


def _holds_texts(data: bytes, count: int) -> bool:
    """Returns whether the data holds exactly `count` elements, without taking them out."""
    offset, end = 0, len(data)
    for _ in range(count):
        if offset + 4 > end:
            return False
        offset += 4 + _LENGTH(data, offset)[0]
    return offset == end


def _no_texts(name: str, count: int) -> InvalidInput:
    return InvalidInput(
        f"tensor '{name}' of BYTES does not hold exactly {count} length-prefixed elements",
        tensor=name,
    )


def join_bytes(items: Sequence[bytes]) -> bytes:
    """Returns the data of a BYTES tensor with these elements."""
    return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))


def to_numpy(tensor: tensor_pb2.Tensor) -> Array:
    """Returns the tensor as an array of its shape.

    The array is read-only and shares the tensor's memory. BF16 is widened to float32; BYTES gives
    an object array of bytes; both are copies. Raises InvalidInput as `check` does.
    """
    count = check(tensor)
    shape = tuple(tensor.shape)
    if tensor.datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = split_bytes(tensor.data, count, tensor.name)
        return array.reshape(shape)
    return numbers(tensor.datatype, tensor.data, shape)


def numbers(datatype: str, data: bytes, shape: Sequence[int]) -> Array:
    """Returns data of any datatype but BYTES as an array; the data must fit the shape.

    The array is read-only and shares the data's memory, except that BF16 is widened to float32.
    """
    if datatype == "BF16":
        words = np.frombuffer(data, dtype="<u2").astype("<u4") << 16
        return words.view("<f4").reshape(shape)
    return np.frombuffer(data, dtype=DTYPES[datatype]).reshape(shape)


def from_numpy(name: str, array: npt.ArrayLike) -> tensor_pb2.Tensor:
    """Returns the array as a tensor of the same shape; text and bytes become BYTES.

    Raises InvalidInput for a numpy type that has no datatype.
    """
    values = np.asarray(array)
    if values.dtype.kind in "OSU":
        return tensor_pb2.Tensor(
            name=name,
            datatype="BYTES",
            shape=values.shape,
            data=join_bytes([_as_bytes(v, name) for v in values.flat]),
        )
    dtype = values.dtype.newbyteorder("<")
    datatype = DATATYPES.get(dtype)
    if datatype is None:
        raise InvalidInput(
            f"tensor '{name}' has the numpy type {values.dtype}, which no datatype stands for",
            tensor=name,
        )
    data = np.ascontiguousarray(values, dtype=dtype).tobytes()
    return tensor_pb2.Tensor(name=name, datatype=datatype, shape=values.shape, data=data)


def _as_bytes(value: object, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise InvalidInput(
        f"tensor '{name}' holds a {type(value).__name__}; only text and bytes make a BYTES tensor",
        tensor=name,
    )


def check_against(
    tensors: Sequence[tensor_pb2.Tensor], specs: Sequence[tensor_pb2.TensorSpec]
) -> None:
    """Raises InvalidInput unless inputs fit a signature: names, datatypes, ranks, dimensions.

    A dimension of -1 in the signature fits any size.
    """
    given = {tensor.name: tensor for tensor in tensors}
    wanted = {spec.name: spec for spec in specs}
    if len(given) != len(tensors):
        raise InvalidInput("an input is given twice")
    for name in given:
        if name not in wanted:
            raise InvalidInput(
                f"the model has no input '{name[:64]}'; it takes {_listed(wanted)}",
                tensor=name[:64],
            )
    for name, spec in wanted.items():
        if name not in given:
            raise InvalidInput(
                f"input '{name}' is missing; the model takes {_listed(wanted)}", tensor=name
            )
        tensor = given[name]
        check(tensor)
        if tensor.datatype != spec.datatype:
            raise InvalidInput(
                f"input '{name}' must be {spec.datatype}, got {tensor.datatype}",
                tensor=name,
                expected=spec.datatype,
            )
        if len(tensor.shape) != len(spec.shape) or any(
            want not in (-1, have) for have, want in zip(tensor.shape, spec.shape, strict=True)
        ):
            raise InvalidInput(
                f"input '{name}' must have the shape {list(spec.shape)}, got {list(tensor.shape)}",
                tensor=name,
                expected=list(spec.shape),
                got=list(tensor.shape),
            )


def _listed(wanted: dict[str, tensor_pb2.TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in wanted) or "none"
