"""Converts plain rows, which are nested lists of JSON values, to and from tensors of a model that
has one input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf import struct_pb2

from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind in ("number_value", "string_value", "bool_value"):
        return getattr(value, kind)
    raise InvalidInput("instances are lists of numbers, strings or booleans", field="instances")


def to_tensor(
    rows: struct_pb2.ListValue, signature: tensor_pb2.MethodSignature
) -> tensor_pb2.Tensor:
    """Returns the rows as the model's one input. Raises InvalidInput if it has several, or the rows
    do not fit its datatype.
    """
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in signature.inputs)
        raise InvalidInput(
            f"instances need a model with one input, this one takes {names}; send inputs instead"
        )
    spec = signature.inputs[0]
    values = [_plain(value) for value in rows.values]
    if spec.datatype == "BYTES":
        return tensors.from_numpy(spec.name, _array(values, np.dtype(object)))
    dtype = tensors.DTYPES.get(spec.datatype)
    if dtype is None:
        raise InvalidInput(f"instances cannot be given as {spec.datatype}; send inputs instead")
    array = _array(values, np.dtype(np.bool_) if dtype.kind == "b" else np.dtype(np.float64))
    if dtype.kind in "iu":
        info: Any = np.iinfo(dtype.type)  # type: ignore[type-var]
        if np.any(array != np.floor(array)) or np.any(array < info.min) or np.any(array > info.max):
            raise InvalidInput(
                f"instances must be whole numbers that fit {spec.datatype}", field="instances"
            )
    return tensors.from_numpy(spec.name, array.astype(dtype))


def _array(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    kinds = {type(leaf) for leaf in _leaves(values)}
    allowed: type = {"b": bool, "f": float, "O": str}[dtype.kind]
    if not kinds <= {allowed}:
        raise InvalidInput("instances do not have the type of the model's input", field="instances")
    try:
        return np.array(values, dtype=dtype)
    except ValueError:
        raise InvalidInput(
            "instances are ragged: all rows must have the same length", field="instances"
        ) from None


def _leaves(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [leaf for item in value for leaf in _leaves(item)]


def from_tensor(tensor: tensor_pb2.Tensor) -> struct_pb2.ListValue:
    """Returns an output as nested lists; NaN and infinities, which JSON lacks, become null."""
    rows = struct_pb2.ListValue()
    array = np.atleast_1d(tensors.to_numpy(tensor))
    for item in array.tolist():
        rows.values.append(_value(item))
    return rows


def _value(item: Any) -> struct_pb2.Value:
    if isinstance(item, list):
        return struct_pb2.Value(
            list_value=struct_pb2.ListValue(values=[_value(part) for part in item])
        )
    if isinstance(item, bool):
        return struct_pb2.Value(bool_value=item)
    if isinstance(item, bytes):
        return struct_pb2.Value(string_value=item.decode("utf-8", "replace"))
    if isinstance(item, float) and not math.isfinite(item):
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    return struct_pb2.Value(number_value=item)
