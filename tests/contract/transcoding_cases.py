"""Generated HTTP requests for every public unary route: mostly right, some wrong in one way."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F

from services.api_gateway.routing.path_templates import ANY
from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import proto_json, scalars

IDS = ["iris", "a.b", "x_1", "v-2", "ü", "a b", "a:b", "50%", "p+q", "a/b", "1"]
TEXTS = [
    "",
    "plain",
    "with space",
    "a+b&c=d",
    "ümläut ✓",
    'quote"d',
    "100%",
    "{}",
    "x" * 50,
    "[1]",
    "a/b?c#d",
]


@dataclass(frozen=True, slots=True)
class Case:
    """A request; `kind` says what is wrong with it, or how it was made."""

    kind: str
    method: str
    target: bytes
    body: bytes
    route: Route


def cases(routes: list[Route], count: int, seed: int) -> list[Case]:
    """`count` requests for each route, the same for the same seed."""
    dice = random.Random(seed)
    return [
        case for route in routes for number in range(count) for case in [_case(dice, route, number)]
    ]


def _case(dice: random.Random, route: Route, number: int) -> Case:
    path, query, body = _path(dice, route), _query(dice, route), _body(dice, route)
    spoils = [
        _unknown_parameter,
        _bad_escape,
        _broken_json,
        _unknown_field,
        _wrong_type,
        _other_path,
        _twice,
    ]
    kind = "right"
    # Every other request is right; the others are spoilt in turn.
    if number % 2:
        spoil = spoils[(number // 2) % len(spoils)]
        kind = spoil.__name__.strip("_")
        path, query, body = spoil(route, path, query, body)
    target = path + ("?" + "&".join(query) if query else "")
    return Case(kind, route.method, target.encode(), body, route)


def _path(dice: random.Random, route: Route) -> str:
    pieces = [quote(dice.choice(IDS), safe="") if s == ANY else s for s in route.template.segments]
    return "/" + "/".join(pieces) + (f":{route.template.verb}" if route.template.verb else "")


def _query(dice: random.Random, route: Route) -> list[str]:
    if route.body == "*":
        return []
    bound = {v.field for v in route.template.variables} | {route.body}
    pairs = []
    for field in route.rpc.input_type.fields:
        if field.name in bound or not scalars.is_single_value(field) or dice.random() < 0.4:
            continue
        name = dice.choice([field.name, str(field.json_name)])
        for _ in range(dice.randint(1, 3) if field.is_repeated else 1):
            value = json_format.MessageToDict(
                _message(dice, route.rpc.input_type, 0, only=field)
            ).get(field.json_name)
            value = value[0] if isinstance(value, list) and value else value
            if value is not None and not isinstance(value, list | dict):
                text = str(value).lower() if isinstance(value, bool) else str(value)
                pairs.append(f"{name}={quote(text, safe='')}")
    return pairs


def _body(dice: random.Random, route: Route) -> bytes:
    if not route.body:
        return b""
    field = None if route.body == "*" else route.rpc.input_type.fields_by_name[route.body]
    descriptor: Any = route.rpc.input_type if field is None else field.message_type
    message = _message(dice, descriptor, 0)
    # Names of the path are given there and nowhere else.
    for variable in route.template.variables:
        leaf = variable.field.split(".")[-1]
        if leaf in descriptor.fields_by_name:
            message.ClearField(leaf)
    return orjson.dumps(
        json_format.MessageToDict(message, preserving_proto_field_name=dice.random() < 0.5)
    )


def _message(dice: random.Random, descriptor: Descriptor, depth: int, only: F | None = None) -> Any:
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in [only] if only is not None else descriptor.fields:
        if only is None and (dice.random() < 0.35 or depth > 3):
            continue
        _fill(dice, message, field, depth)
    return message


def _fill(dice: random.Random, message: Any, field: F, depth: int) -> None:
    if proto_json.is_map(field) and field.message_type is not None:
        value: Any = field.message_type.fields_by_name["value"]
        for _ in range(dice.randint(0, 2)):
            getattr(message, field.name)[dice.choice(TEXTS)] = _scalar(dice, value)
    elif field.is_repeated and field.message_type is None:
        getattr(message, field.name).extend(_scalar(dice, field) for _ in range(dice.randint(0, 3)))
    elif field.is_repeated and field.message_type is not None:
        inner: Any = field.message_type
        getattr(message, field.name).extend(
            _message(dice, inner, depth + 1) for _ in range(dice.randint(0, 2))
        )
    elif field.message_type is not None:
        _fill_message(dice, getattr(message, field.name), depth)
    else:
        setattr(message, field.name, _scalar(dice, field))


def _fill_message(dice: random.Random, target: Any, depth: int) -> None:
    match target.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            target.FromSeconds(dice.randint(0, 4_000_000_000))
        case "google.protobuf.FieldMask":
            target.paths.extend(dice.sample(["roles", "disabled", "display_name"], 2))
        case "google.protobuf.ListValue":
            json_format.ParseDict(
                dice.choice([[], [1, 2.5], [[1, "x"], [None, True]], [{"a": [1]}]]), target
            )
        case _:
            target.CopyFrom(_message(dice, target.DESCRIPTOR, depth + 1))


def _scalar(dice: random.Random, field: F) -> Any:
    match field.type:
        case F.TYPE_BOOL:
            return dice.random() < 0.5
        case F.TYPE_BYTES:
            return dice.randbytes(dice.randint(0, 9))
        case F.TYPE_STRING:
            return dice.choice(TEXTS)
        case F.TYPE_ENUM:
            return dice.choice(field.enum_type.values).number if field.enum_type is not None else 0
        case F.TYPE_FLOAT | F.TYPE_DOUBLE:
            return dice.choice([0.0, 1.5, -2.25, 1e10])
        case F.TYPE_INT64 | F.TYPE_UINT64:
            return dice.choice([0, 1, 2**53 + 1, 2**62])
        case _:
            return dice.choice([0, 1, 1000, 2**31 - 1])


def _unknown_parameter(
    _: Route, path: str, query: list[str], body: bytes
) -> tuple[str, list[str], bytes]:
    return path, [*query, "no_such_parameter=1"], body


def _bad_escape(_: Route, path: str, query: list[str], body: bytes) -> tuple[str, list[str], bytes]:
    return path.replace("v1/", "v1/%zz", 1), query, body


def _broken_json(
    route: Route, path: str, query: list[str], body: bytes
) -> tuple[str, list[str], bytes]:
    return path, query, (body or b"{}")[:-1] if route.body else b""


def _unknown_field(
    route: Route, path: str, query: list[str], body: bytes
) -> tuple[str, list[str], bytes]:
    return (
        path,
        query,
        orjson.dumps({**orjson.loads(body), "noSuchField": 1}) if route.body else b"",
    )


def _wrong_type(
    route: Route, path: str, query: list[str], body: bytes
) -> tuple[str, list[str], bytes]:
    if not route.body:
        return (
            path,
            [*query, "page_size=many"]
            if "page_size" in route.rpc.input_type.fields_by_name
            else query,
            body,
        )
    return path, query, b'"a string"'


def _other_path(_: Route, path: str, query: list[str], body: bytes) -> tuple[str, list[str], bytes]:
    return path.replace("/v1/", "/v9/", 1).replace("well-known", "unknown"), query, body


def _twice(_: Route, path: str, query: list[str], body: bytes) -> tuple[str, list[str], bytes]:
    return path, [*query, *query], body
