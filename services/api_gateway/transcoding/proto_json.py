"""Plain JSON data into a protobuf message, by the rules of proto3 JSON; unknown fields are errors.

Pure. Fields are accepted under their JSON name and their proto name. What a message type needs is
looked up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from services.api_gateway.transcoding import scalars
from services.api_gateway.transcoding.scalars import wrong
from stellwerk.wire.errors import InvalidInput, TooLarge

# Deeper data is no request of ours; it bounds the recursion below.
MAX_DEPTH = 64
_VALUE, _STRUCT, _LIST, _ANY = (
    f"google.protobuf.{name}" for name in ("Value", "Struct", "ListValue", "Any")
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a body may be made of. A byte of JSON can take a hundred bytes of memory, and a
    while to look at.
    """

    # Objects and lists.
    containers: int
    keys: int
    elements: int


# For tensors: so many elements of a flat one are some 64 megabytes.
TENSORS = Bounds(containers=1 << 20, keys=1 << 20, elements=1 << 23)
# For what is put into a message piece by piece.
FIELDS = Bounds(containers=1 << 18, keys=1 << 18, elements=1 << 20)
# Smaller bodies cannot hold enough to be worth counting.
_COUNTED_FROM_BYTES = 256 * 1024


def parse(body: bytes | memoryview, bounds: Bounds = TENSORS) -> Any:
    """The JSON value in a body. Raises InvalidInput that says where it breaks off, TooLarge beyond
    the bounds.
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
    """Counts the characters that parts begin with, those in texts too: that is done at a gigabyte a
    second.
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


def fill(message: Message, data: object, path: str = "", depth: int = 0) -> None:
    """Sets the message's fields from data. Raises InvalidInput that names the field."""
    name = message.DESCRIPTOR.full_name
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the body is nested more than {MAX_DEPTH} levels deep")
    special = _SPECIAL.get(name)
    if special is not None:
        special(message, data, path, depth)
    elif scalars.is_text_message(name):
        scalars.fill_text_message(message, data, path)
    elif scalars.is_wrapper(name):
        field: Any = message.DESCRIPTOR.fields_by_name["value"]
        message.value = scalars.convert(field, data, path)  # type: ignore[attr-defined]
        message.SetInParent()
    else:
        _fill_fields(message, data, path, depth)


@cache
def names_of(descriptor: Descriptor) -> dict[str, F]:
    """Fields by JSON name and by proto name."""
    named = {field.name: field for field in descriptor.fields}
    named.update({str(field.json_name): field for field in descriptor.fields})
    return named


def is_map(field: F) -> bool:
    """The field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill_fields(message: Message, data: object, path: str, depth: int) -> None:
    if not isinstance(data, dict):
        raise wrong(path, "an object") if path else InvalidInput("the body must be a JSON object")
    message.SetInParent()
    known, seen = names_of(message.DESCRIPTOR), set()
    for key, value in data.items():
        field = known.get(key)
        where = f"{path}.{key}" if path else key
        if field is None:
            raise InvalidInput(f"there is no field '{where[:200]}'", field=where[:200])
        if value is None and not _takes_null(field):
            continue
        # Members of one oneof exclude each other, as do the two names of one field.
        unique = (
            field.containing_oneof.full_name
            if field.containing_oneof is not None
            else field.full_name
        )
        if unique in seen:
            raise InvalidInput(
                f"the field '{where[:200]}' or one that excludes it is given twice",
                field=where[:200],
            )
        seen.add(unique)
        _set(message, field, value, where, depth)


def _takes_null(field: F) -> bool:
    return (
        field.message_type is not None
        and field.message_type.full_name == _VALUE
        and not field.is_repeated
    )


def _set(message: Message, field: F, value: object, path: str, depth: int) -> None:
    if is_map(field):
        _set_map(message, field, value, path, depth)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise wrong(path, "a list")
        target = getattr(message, field.name)
        if field.message_type is None:
            target.extend(
                [scalars.convert(field, item, f"{path}[{i}]") for i, item in enumerate(value)]
            )
            return
        for i, item in enumerate(value):
            fill(target.add(), item, f"{path}[{i}]", depth + 1)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        fill(target, value, path, depth + 1)
    else:
        setattr(message, field.name, scalars.convert(field, value, path))


def _set_map(message: Message, field: F, value: object, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise wrong(path, "an object")
    assert field.message_type is not None
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    target = getattr(message, field.name)
    for text, item in value.items():
        where = f"{path}[{text}]"
        key = scalars.from_text(key_field, text, where)
        if value_field.message_type is None:
            target[key] = scalars.convert(value_field, item, where)
        else:
            fill(target[key], item, where, depth + 1)


def _fill_value(message: Any, data: object, path: str, depth: int) -> None:
    match data:
        case None:
            message.null_value = struct_pb2.NULL_VALUE
        case bool():
            message.bool_value = data
        case int() | float():
            message.number_value = data
        case str():
            message.string_value = data
        case list():
            fill(message.list_value, data, path, depth + 1)
        case _:
            fill(message.struct_value, data, path, depth + 1)


def _fill_list(message: Any, data: object, path: str, depth: int) -> None:
    if not isinstance(data, list):
        raise wrong(path, "a list")
    message.SetInParent()
    for item in data:
        _fill_value(message.values.add(), item, path, depth)


def _fill_struct(message: Any, data: object, path: str, depth: int) -> None:
    if not isinstance(data, dict):
        raise wrong(path, "an object")
    message.SetInParent()
    for key, item in data.items():
        _fill_value(message.fields[key], item, path, depth)


def _refuse_any(_: Any, data: object, path: str, depth: int) -> None:
    raise InvalidInput(f"the field '{path[:200]}' cannot be given as JSON", field=path[:200])


_SPECIAL = {_VALUE: _fill_value, _LIST: _fill_list, _STRUCT: _fill_struct, _ANY: _refuse_any}
