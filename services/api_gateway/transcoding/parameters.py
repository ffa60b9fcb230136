"""Reads path variables and query parameters into a message, as google.api.http says. Pure.

Stricter than other transcoders where leniency hides mistakes: an unknown parameter, and a second
value for a singular field, are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import proto_json, scalars
from stellwerk.wire.errors import InvalidInput

# Parameters of a query; no RPC has as many fields.
MAX_QUERY_PARAMETERS = 200
FIELD_MASK = "google.protobuf.FieldMask"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAP_KEY = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)


def query_pairs(raw: bytes) -> list[tuple[str, str]]:
    """Returns the parameters of a query string, decoded, in their order. Raises InvalidInput."""
    text = raw.decode("latin-1")
    if not text:
        return []
    pieces = [piece for piece in text.split("&") if piece]
    if len(pieces) > MAX_QUERY_PARAMETERS:
        raise InvalidInput(f"the query has more than {MAX_QUERY_PARAMETERS} parameters")
    if _BAD_ESCAPE.search(text):
        raise InvalidInput(
            "the query holds a '%' without two hexadecimal digits after it; write %25 for a percent"
        )
    try:
        decoded = [piece.partition("=") for piece in pieces]
        return [
            (unquote_plus(k, errors="strict"), unquote_plus(v, errors="strict"))
            for k, _, v in decoded
        ]
    except UnicodeDecodeError as exc:
        raise InvalidInput("the query is not UTF-8 after percent-decoding") from exc


def read_parameters(
    route: Route, message: Message, variables: Mapping[str, str], query: Iterable[tuple[str, str]]
) -> None:
    """Sets the fields of query parameters, which are neither `variables` nor the body's, and then
    those of the path's variables.

    Raises InvalidInput that names the parameter.
    """
    _read_query(route, message, variables, query)
    # The path wins over the body: the caller addressed that resource.
    for path, text in variables.items():
        fields, _ = _resolve(route.rpc.input_type, path)
        _put(_parent(message, fields), fields[-1], None, text, path)


def _read_query(
    route: Route, message: Message, variables: Mapping[str, str], query: Iterable[tuple[str, str]]
) -> None:
    seen: set[str] = set()
    for name, text in query:
        fields, key = _resolve(route.rpc.input_type, name)
        path = ".".join(field.name for field in fields)
        if route.body == "*" or path in variables or (route.body and fields[0].name == route.body):
            raise InvalidInput(
                f"the query parameter '{name[:200]}' belongs into the path or body",
                field=name[:200],
            )
        leaf = fields[-1]
        unique = f"{path}[{key}]"
        if (not leaf.is_repeated or key is not None) and unique in seen:
            raise InvalidInput(
                f"the query parameter '{name[:200]}' is given twice", field=name[:200]
            )
        # A mask in the query replaces the one that the body filled.
        if leaf.message_type is not None and leaf.message_type.full_name == FIELD_MASK:
            getattr(_parent(message, fields), leaf.name).Clear()
        _refuse_second_member(message, fields, name)
        seen.add(unique)
        _put(_parent(message, fields), leaf, key, text, name)


def _refuse_second_member(message: Message, fields: list[F], name: str) -> None:
    oneof = fields[-1].containing_oneof
    if oneof is None:
        return
    other = _parent(message, fields).WhichOneof(oneof.name)
    if other is not None and other != fields[-1].name:
        raise InvalidInput(
            f"the query parameter '{name[:200]}' excludes '{other}'; give one of them",
            field=name[:200],
        )


def _resolve(descriptor: Descriptor, name: str) -> tuple[list[F], str | None]:
    """Returns the fields along a dotted name, and the map key if it ends in one (`labels[env]`).

    Raises InvalidInput.
    """
    keyed = _MAP_KEY.fullmatch(name)
    dotted, key = (keyed.group(1), keyed.group(2)) if keyed else (name, None)
    fields: list[F] = []
    at: Descriptor | None = descriptor
    for part in dotted.split("."):
        field = proto_json.names_of(at).get(part) if at is not None else None
        if field is None or (
            fields and (fields[-1].is_repeated or scalars.is_single_value(fields[-1]))
        ):
            raise InvalidInput(f"there is no query parameter '{name[:200]}'", field=name[:200])
        fields.append(field)
        at = field.message_type
    leaf = fields[-1]
    if proto_json.is_map(leaf) != (key is not None):
        raise InvalidInput(f"there is no query parameter '{name[:200]}'", field=name[:200])
    value = (
        leaf.message_type.fields_by_name["value"]
        if key is not None and leaf.message_type is not None
        else leaf
    )
    if not scalars.is_single_value(value):
        raise InvalidInput(
            f"the parameter '{name[:200]}' is not a single value; it cannot stand in a query",
            field=name[:200],
        )
    return fields, key


def _parent(message: Message, fields: list[F]) -> Any:
    parent: Any = message
    for field in fields[:-1]:
        parent = getattr(parent, field.name)
    return parent


def _put(parent: Any, field: F, key: str | None, text: str, name: str) -> None:
    if key is not None and field.message_type is not None:
        key_field, value_field = (
            field.message_type.fields_by_name[part] for part in ("key", "value")
        )
        target = getattr(parent, field.name)
        if value_field.message_type is None:
            target[scalars.from_text(key_field, key, name)] = scalars.from_text(
                value_field, text, name
            )
        else:
            proto_json.fill(target[scalars.from_text(key_field, key, name)], text, name)
    elif field.message_type is not None:
        target = getattr(parent, field.name)
        target = target.add() if field.is_repeated else target
        target.SetInParent()
        _fill_single(target, text, name)
    elif field.is_repeated:
        getattr(parent, field.name).append(scalars.from_text(field, text, name))
    else:
        setattr(parent, field.name, scalars.from_text(field, text, name))


def _fill_single(target: Any, text: str, name: str) -> None:
    if scalars.is_wrapper(target.DESCRIPTOR.full_name):
        target.value = scalars.from_text(target.DESCRIPTOR.fields_by_name["value"], text, name)
    else:
        scalars.fill_text_message(target, text, name)
