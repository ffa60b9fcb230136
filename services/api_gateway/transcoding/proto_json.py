"""Reads plain JSON data into a protobuf message by the rules of proto3 JSON, strictly. Pure.

protobuf's own reader takes what may not be taken and names fields by our types; decision 24 has
the comparison. Where its helpers keep the rules they do the work: for Struct, Value and ListValue
here, for times, durations and field masks in `scalars`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from services.api_gateway.transcoding import scalars
from services.api_gateway.transcoding.scalars import wrong
from stellwerk.wire.errors import InvalidInput

# Levels of nested objects and lists: no request needs as many, and recursion ends there.
MAX_DEPTH = 64
_VALUE = "google.protobuf.Value"
_LIST = "google.protobuf.ListValue"
_STRUCT = "google.protobuf.Struct"
_ANY = "google.protobuf.Any"
_CONTAINERS = frozenset({list, dict})


def fill(message: Message, data: object, path: str = "", depth: int = 0) -> None:
    """Sets the message's fields from JSON data.

    A field has its JSON name or its proto name. Raises InvalidInput that names the field by its
    path from the body, such as `signature[0].inputs`; an unknown field is an error too.
    """
    name = message.DESCRIPTOR.full_name
    if depth > MAX_DEPTH:
        raise _too_deep()
    if name in _PLAIN:
        _check_depth(data, depth)
        _PLAIN[name](message, data, path)
    elif name == _ANY:
        raise InvalidInput(f"the field '{path[:200]}' cannot be given as JSON", field=path[:200])
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
    """Returns the message type's fields by JSON name and by proto name."""
    named = {field.name: field for field in descriptor.fields}
    named.update({str(field.json_name): field for field in descriptor.fields})
    return named


def is_map(field: F) -> bool:
    """Returns whether the field is a map."""
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


def _too_deep() -> InvalidInput:
    return InvalidInput(f"the body is nested more than {MAX_DEPTH} levels deep")


def _check_depth(data: object, depth: int) -> None:
    """Raises InvalidInput for data nested below MAX_DEPTH; protobuf's helpers have no bound."""
    level: list[Any] = [data] if type(data) in _CONTAINERS else []
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        depth += 1
        inner: list[Any] = []
        for item in level:
            parts = item.values() if isinstance(item, dict) else item
            # Most lists hold numbers alone; this look at their types runs in C.
            if not _CONTAINERS.isdisjoint(map(type, parts)):
                inner += [part for part in parts if type(part) in _CONTAINERS]
        level = inner


def _fill_list(message: Any, data: object, path: str) -> None:
    if not isinstance(data, list):
        raise wrong(path, "a list")
    message.SetInParent()
    message.extend(data)


def _fill_struct(message: Any, data: object, path: str) -> None:
    if not isinstance(data, dict):
        raise wrong(path, "an object")
    message.SetInParent()
    message.update(data)


def _fill_value(message: Any, data: object, _: str) -> None:
    # A Value has no helper of its own; a list of one has.
    holder: Any = struct_pb2.ListValue()
    holder.append(data)
    message.CopyFrom(holder.values[0])


# Messages that stand for plain JSON.
_PLAIN = {_VALUE: _fill_value, _LIST: _fill_list, _STRUCT: _fill_struct}
