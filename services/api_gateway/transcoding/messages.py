"""Reads an HTTP request into a protobuf message and writes a message as JSON, as google.api.http
says. Pure.

The path wins over the body; a body that the route does not take is an error (decision 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from google.api import httpbody_pb2
from google.protobuf import field_mask_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import json_body, proto_json
from services.api_gateway.transcoding.parameters import FIELD_MASK, read_parameters
from stellwerk.wire.errors import InvalidInput

_HTTP_BODY = "google.api.HttpBody"
# A field that makes a change conditional is not itself changed (AIP-154).
_NOT_MASKED = frozenset({"etag"})


def request_message(
    route: Route,
    variables: Mapping[str, str],
    query: Iterable[tuple[str, str]],
    body: bytes,
    content_type: str = "",
) -> Message:
    """Returns the request message of a route's RPC. Raises InvalidInput that names the field or
    parameter.
    """
    message = message_factory.GetMessageClass(route.rpc.input_type)()
    _read_body(route, message, variables, body, content_type)
    read_parameters(route, message, variables, query)
    return message


def takes_raw_body(route: Route) -> bool:
    """Returns whether the request's body is passed on as bytes (google.api.HttpBody)."""
    target = route.rpc.input_type if route.body == "*" else body_type(route)
    return target is not None and target.full_name == _HTTP_BODY


def gives_raw_body(route: Route) -> bool:
    """Returns whether the response's body is bytes (google.api.HttpBody)."""
    return response_type(route).full_name == _HTTP_BODY


def body_type(route: Route) -> Descriptor | None:
    """Returns the message type of the field that is the body; None for a scalar or no field."""
    if route.body in ("", "*"):
        return None
    return route.rpc.input_type.fields_by_name[route.body].message_type


def response_type(route: Route) -> Descriptor:
    """Returns the type of the JSON response: the message, or its `response_body` field."""
    if not route.response_body:
        return route.rpc.output_type
    inner = route.rpc.output_type.fields_by_name[route.response_body].message_type
    return route.rpc.output_type if inner is None else inner


def response_json(route: Route, message: Message) -> bytes:
    """Returns the response as proto3 JSON: camelCase, zero values, 64-bit integers as strings."""
    data = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    if route.response_body:
        field = message.DESCRIPTOR.fields_by_name[route.response_body]
        return orjson.dumps(data.get(field.json_name))
    return orjson.dumps(data)


def response_raw(route: Route, message: Message) -> httpbody_pb2.HttpBody:
    """Returns the HttpBody in a response, for a route for which `gives_raw_body` holds."""
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
    data = json_body.parse(body, json_body.FIELDS)
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
        and f.message_type.full_name == FIELD_MASK
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
