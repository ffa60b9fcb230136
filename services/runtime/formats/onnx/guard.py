"""Checks an ONNX file before onnxruntime reads it: refuses tensors whose data lies in another file,
because such a model could read any file that the process may read.

Walks the protobuf messages in the mapped file and skips the weights, so that a model of any size
costs milliseconds and no memory. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from stellwerk.wire.errors import Corrupt, UnsafeFormat

# Message type → the fields that lead to a tensor, with the types of their messages.
_PATHS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
# A tensor's fields: its references to other files, and its data's location, where 0 is "here".
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14
# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Nested messages; protobuf's own limit.
_DEPTH = 100
_MAX_KEY = (1 << 32) - 1


def check(path: Path) -> None:
    """Raises UnsafeFormat for data in other files, Corrupt for a file that is no ONNX message."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as exc:
            raise Corrupt("the artifact is empty; store the model again as ONNX") from exc
        with data, memoryview(data) as view:
            try:
                _walk(view, "Model", 0)
            except IndexError as exc:
                raise _corrupt() from exc


def _walk(view: memoryview, kind: str, depth: int) -> None:
    if depth > _DEPTH:
        raise _corrupt()
    position, paths = 0, _PATHS[kind]
    while position < len(view):
        key, position = _varint(view, position)
        if key > _MAX_KEY:
            # protobuf would drop the upper bits and read another field.
            raise _corrupt()
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(view, position)
            if kind == "Tensor" and number == _DATA_LOCATION and value:
                raise _outside()
        elif wire == _BYTES:
            length, position = _varint(view, position)
            if position + length > len(view):
                raise _corrupt()
            if kind == "Tensor" and number == _EXTERNAL_DATA:
                raise _outside()
            if number in paths:
                with view[position : position + length] as part:
                    _walk(part, paths[number], depth + 1)
            position += length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            # Groups, which ONNX does not have.
            raise _corrupt()
    if position > len(view):
        raise _corrupt()


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Returns a number and the position behind it. Raises IndexError at the message's end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _corrupt()


def _corrupt() -> Corrupt:
    return Corrupt("the artifact is not an ONNX model; store the model again as ONNX")


def _outside() -> UnsafeFormat:
    return UnsafeFormat("the ONNX model keeps tensors in other files; save it as one file")
