"""An HTTP request into a protobuf message, and a message into proto3 JSON, as google.api.http says.

Stricter than other transcoders where leniency hides mistakes: an unknown query parameter, a second
value for a singular field, and a body that the route does not take are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

import orjson
from google.api import httpbody_pb2
from google.protobuf import field_mask_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import proto_json, scalars
from stellwerk.wire.errors import InvalidInput

MAX_QUERY_PARAMETERS = 200
_HTTP_BODY = "google.api.HttpBody"
_FIELD_MASK = "google.protobuf.FieldMask"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAP_KEY = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)
# What makes a change conditional is not itself changed (AIP-154).
_NOT_MASKED = frozenset({"etag"})


def query_pairs(raw: bytes) -> list[tuple[str, str]]:
    """The parameters of a query string, decoded, in order. Raises InvalidInput."""
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


def request_message(
    route: Route,
    variables: Mapping[str, str],
    query: Iterable[tuple[str, str]],
    body: bytes,
    content_type: str = "",
) -> Message:
    """The request message of a route's RPC. Raises InvalidInput that names the field or
    parameter.
    """
    message = message_factory.GetMessageClass(route.rpc.input_type)()
    _read_body(route, message, variables, body, content_type)
    _read_query(route, message, variables, query)
    # The path wins over the body: it is what the caller addressed.
    for path, text in variables.items():
        _set_path(message, path, text)
    return message


def takes_raw_body(route: Route) -> bool:
    """The request's body is passed on as bytes (google.api.HttpBody)."""
    target = route.rpc.input_type if route.body == "*" else body_type(route)
    return target is not None and target.full_name == _HTTP_BODY


def gives_raw_body(route: Route) -> bool:
    """The response's body is bytes (google.api.HttpBody)."""
    return response_type(route).full_name == _HTTP_BODY


def body_type(route: Route) -> Descriptor | None:
    """The message type of the field that is the body, None where it is no message or the route has
    no such field.
    """
    if route.body in ("", "*"):
        return None
    return route.rpc.input_type.fields_by_name[route.body].message_type


def response_type(route: Route) -> Descriptor:
    """The type of what is answered: the response, or its `response_body` field."""
    if not route.response_body:
        return route.rpc.output_type
    inner = route.rpc.output_type.fields_by_name[route.response_body].message_type
    return route.rpc.output_type if inner is None else inner


def response_json(route: Route, message: Message) -> bytes:
    """The response as proto3 JSON: camelCase names, 64-bit integers as strings, and zero values
    printed.
    """
    data = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    if route.response_body:
        field = message.DESCRIPTOR.fields_by_name[route.response_body]
        return orjson.dumps(data.get(field.json_name))
    return orjson.dumps(data)


def response_raw(route: Route, message: Message) -> httpbody_pb2.HttpBody:
    """The HttpBody in a response; only for a route for which `gives_raw_body` holds."""
    body: httpbody_pb2.HttpBody = (
        getattr(message, route.response_body) if route.response_body else message
    )
    return body


def _read_body(
    route: Route, message: Message, variables: Mapping[str, str], body: bytes, content_type: str
) -> None:
    if not route.body:
        if body:
            raise InvalidInput("this method takes no body; put its fields into the query")
        return
    target: Any = message if route.body == "*" else None
    if takes_raw_body(route):
        raw: Any = target if target is not None else getattr(message, route.body)
        raw.content_type, raw.data = content_type, body
        return
    if not body:
        return
    data = proto_json.parse(body, proto_json.FIELDS)
    if target is not None:
        proto_json.fill(message, data)
        return
    field = route.rpc.input_type.fields_by_name[route.body]
    if field.message_type is not None and not field.is_repeated:
        inner = getattr(message, route.body)
        inner.SetInParent()
        proto_json.fill(inner, data)
    else:
        proto_json.fill(message, {route.body: data})
    if route.method == "PATCH" and isinstance(data, dict) and field.message_type is not None:
        _mask_from_body(message, field, data, variables)


def _mask_from_body(
    message: Message, body: F, data: dict[str, Any], variables: Mapping[str, str]
) -> None:
    """Fills the update mask with what the body holds; a mask in the query replaces it later."""
    masks = [
        f
        for f in message.DESCRIPTOR.fields
        if f.message_type is not None
        and f.message_type.full_name == _FIELD_MASK
        and not f.is_repeated
    ]
    if len(masks) != 1 or body.message_type is None:
        return
    bound = {
        path.removeprefix(body.name + ".") for path in variables if path.startswith(body.name + ".")
    }
    paths = [
        p for p in _leaves(body.message_type, data, "") if p not in bound and p not in _NOT_MASKED
    ]
    getattr(message, masks[0].name).CopyFrom(field_mask_pb2.FieldMask(paths=sorted(paths)))


def _leaves(descriptor: Descriptor, data: dict[str, Any], prefix: str) -> list[str]:
    known = proto_json.names_of(descriptor)
    paths: list[str] = []
    for key, value in data.items():
        field = known[key]
        plain = field.message_type is not None and not field.message_type.full_name.startswith(
            "google.protobuf."
        )
        if (
            plain
            and isinstance(value, dict)
            and value
            and not field.is_repeated
            and field.message_type is not None
        ):
            paths += _leaves(field.message_type, value, f"{prefix}{field.name}.")
        else:
            paths.append(prefix + field.name)
    return paths


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
        # A mask that the body filled gives way to the one that was asked for.
        if leaf.message_type is not None and leaf.message_type.full_name == _FIELD_MASK:
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


def _set_path(message: Message, path: str, text: str) -> None:
    descriptor: Any = message.DESCRIPTOR
    fields, _ = _resolve(descriptor, path)
    _put(_parent(message, fields), fields[-1], None, text, path)


def _resolve(descriptor: Descriptor, name: str) -> tuple[list[F], str | None]:
    """The fields along a dotted name, and the key if it ends in one (`labels[env]`). Raises
    InvalidInput.
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
            f"the query parameter '{name[:200]}' is no single value; it has no form here",
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
