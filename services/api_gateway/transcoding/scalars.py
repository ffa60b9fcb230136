"""Converts one JSON value for one field: scalars, enums and well-known types of proto3. Pure.

protobuf's own reader takes more than proto3 JSON allows, such as `1_000` for a number and any text
as base64 (decision 24). Here a value that does not fit is InvalidInput with the field's path.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from stellwerk.wire.errors import InvalidInput

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# Halfway from the largest 32-bit float to the next power of two: a smaller number rounds to a
# finite one. The shortest text of the largest float, 3.4028235e+38, is larger than that float.
_FLOAT_LIMIT = 3.4028235677973366e38
_BITS = {
    F.TYPE_INT32: (-(2**31), 2**31 - 1),
    F.TYPE_SINT32: (-(2**31), 2**31 - 1),
    F.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    F.TYPE_UINT32: (0, 2**32 - 1),
    F.TYPE_FIXED32: (0, 2**32 - 1),
    F.TYPE_INT64: (-(2**63), 2**63 - 1),
    F.TYPE_SINT64: (-(2**63), 2**63 - 1),
    F.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    F.TYPE_UINT64: (0, 2**64 - 1),
    F.TYPE_FIXED64: (0, 2**64 - 1),
}
# Messages whose JSON form is one string, with the words for it in an error.
_TEXT_MESSAGES = {
    "google.protobuf.Timestamp": "a time as in RFC 3339, such as 2024-05-01T12:00:00Z",
    "google.protobuf.Duration": "a duration in seconds, such as 1.5s",
    "google.protobuf.FieldMask": "field names joined by commas",
}
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double", "String", "Bytes")
)


def wrong(path: str, wanted: str) -> InvalidInput:
    """Returns the error for a value that does not fit its field."""
    return InvalidInput(f"the field '{path[:200]}' must be {wanted}", field=path[:200])


def is_single_value(field: F) -> bool:
    """Returns whether the field's JSON form is one scalar, which may stand in a path or query."""
    return (
        field.message_type is None
        or field.message_type.full_name in _TEXT_MESSAGES.keys() | _WRAPPERS
    )


def is_text_message(full_name: str) -> bool:
    """Returns whether the message's JSON form is one string."""
    return full_name in _TEXT_MESSAGES


def is_wrapper(full_name: str) -> bool:
    """Returns whether the message's JSON form is that of its only field."""
    return full_name in _WRAPPERS


def convert(field: F, value: object, path: str) -> Any:
    """Returns the Python value of a scalar or enum field for its JSON form. Raises InvalidInput."""
    return _CONVERTERS[field.type](field, value, path)


def fill_text_message(message: Message, value: object, path: str) -> None:
    """Sets a Timestamp, Duration or FieldMask from its JSON form. Raises InvalidInput."""
    if isinstance(value, str):
        try:
            message.FromJsonString(value)  # type: ignore[attr-defined]
            return
        except (ValueError, OverflowError, AttributeError):
            pass
    raise wrong(path, _TEXT_MESSAGES[message.DESCRIPTOR.full_name])


def _integer(field: F, value: object, path: str) -> int:
    low, high = _BITS[field.type]
    number: int | None = None
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            number = int(value)
        elif _NUMBER.fullmatch(value):
            value = float(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not low <= number <= high:
        raise wrong(path, f"a whole number from {low} to {high}")
    return number


def _float(field: F, value: object, path: str) -> float:
    number: float | None = None
    if isinstance(value, str):
        number = _SPECIAL.get(value)
        if number is not None:
            return number
        number = float(value) if _NUMBER.fullmatch(value) else None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    limit = _FLOAT_LIMIT if field.type == F.TYPE_FLOAT else math.inf
    if number is None or not math.isfinite(number) or abs(number) >= limit:
        raise wrong(path, "a number, or one of the strings NaN, Infinity and -Infinity")
    return number


def _bool(_: F, value: object, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong(path, "true or false")


def _string(_: F, value: object, path: str) -> str:
    if isinstance(value, str) and (
        value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    ):
        return value
    raise wrong(path, "a string")


def _bytes(_: F, value: object, path: str) -> bytes:
    """Decodes base64 of the standard or the URL-safe alphabet, with or without padding."""
    if isinstance(value, str):
        plain = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise wrong(path, "bytes in base64")


def _enum(field: F, value: object, path: str) -> int:
    enum = field.enum_type
    assert enum is not None
    if isinstance(value, str):
        known = enum.values_by_name.get(value)
        if known is not None:
            return int(known.number)
        value = int(value) if _INTEGER.fullmatch(value) else value
    if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
        return value
    raise wrong(path, "one of " + ", ".join(known.name for known in enum.values[:20]))


def from_text(field: F, text: str, path: str) -> Any:
    """Returns the Python value of a field for text of a path or query. Raises InvalidInput.

    Unlike `convert` it reads `true` as a boolean, and a whole number in digits alone, not 1e3.
    """
    if field.type == F.TYPE_BOOL:
        return _bool(field, {"true": True, "false": False}.get(text), path)
    if field.type in _BITS and not _INTEGER.fullmatch(text):
        raise wrong(path, "a whole number in digits")
    return convert(field, text, path)


_CONVERTERS: dict[int, Callable[[F, object, str], Any]] = {
    **dict.fromkeys(_BITS, _integer),
    F.TYPE_FLOAT: _float,
    F.TYPE_DOUBLE: _float,
    F.TYPE_BOOL: _bool,
    F.TYPE_STRING: _string,
    F.TYPE_BYTES: _bytes,
    F.TYPE_ENUM: _enum,
}
