"""Client-side transcoding: a request message as an HTTP request, by the google.api.http rules of
its RPC. Pure.

A path variable takes the field's value, the body takes the named field or all that is left ("*"),
the query takes the rest; names and values are those of the proto3 JSON mapping. Rules:
google/api/http.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from stellwerk.client.transport.rpc import Route, Rpc, rpc_of
from stellwerk.wire.errors import Internal, InvalidInput

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]*))?\}")
RAW_BODY = "google.api.HttpBody"


@dataclass(frozen=True, slots=True)
class HttpCall:
    """An HTTP request without its address: path and query are encoded; body None means that there
    is none.
    """

    method: str
    target: str
    body: bytes | None


def to_http(request: Message) -> HttpCall:
    """The request as its RPC's first route whose path fits the names in it; InvalidInput if none
    does.

    A body that is raw bytes (HttpBody) is left out: it is streamed.
    """
    rpc = rpc_of(request)
    for route in rpc.routes:
        path = _expand(route, request)
        if path is not None:
            return _fill(route, path, request)
    if not rpc.routes:
        raise InvalidInput(
            f"{rpc.path} is not offered over HTTP; connect with a grpc:// address", rpc=rpc.path
        )
    shapes = " or ".join(
        shape for route in rpc.routes for _, shape in _VARIABLE.findall(route.template)
    )
    raise InvalidInput(f"the name in this call must look like {shapes}", rpc=rpc.path)


def from_http(rpc: Rpc, body: bytes) -> Message:
    """The answer's JSON as the RPC's response; fields that a newer server added are skipped."""
    response = rpc.response()
    try:
        fields = orjson.loads(body)
        if rpc.response_body:
            fields = {rpc.response_body: fields}
        return json_format.ParseDict(fields, response, ignore_unknown_fields=True)
    except (ValueError, json_format.ParseError) as exc:
        raise Internal(
            "the platform's answer is not the JSON that this call gives; is the address right?"
        ) from exc


def _expand(route: Route, request: Message) -> str | None:
    """The path with the request's values in it, or None if they do not fit."""
    parts, end = [], 0
    for match in _VARIABLE.finditer(route.template):
        shape = match[2] or "*"
        value = str(_field(request, match[1]))
        if not re.fullmatch(_shape_regex(shape), value):
            return None
        # A variable of one segment is decoded wholly by the server, one of several keeps its
        # slashes.
        parts += [
            route.template[end : match.start()],
            quote(value, safe="/" if "/" in shape or "**" in shape else ""),
        ]
        end = match.end()
    return "".join([*parts, route.template[end:]])


def _shape_regex(shape: str) -> str:
    segments = {"*": "[^/]+", "**": ".*"}
    return "/".join(segments.get(part) or re.escape(part) for part in shape.split("/"))


def _fill(route: Route, path: str, request: Message) -> HttpCall:
    rest = type(request)()
    rest.CopyFrom(request)
    for variable, _ in _VARIABLE.findall(route.template):
        *parents, last = variable.split(".")
        _field(rest, ".".join(parents)).ClearField(last)
    body: bytes | None = None
    if route.body == "*":
        return HttpCall(route.http_method, path, _json(rest))
    if route.body:
        body_type = rest.DESCRIPTOR.fields_by_name[route.body].message_type
        if body_type is None or body_type.full_name != RAW_BODY:
            body = _json(getattr(rest, route.body))
        rest.ClearField(route.body)
    query = urlencode(list(_query("", json_format.MessageToDict(rest))))
    return HttpCall(route.http_method, f"{path}?{query}" if query else path, body)


def _field(message: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        message = getattr(message, part)
    return message


def _json(message: Message) -> bytes:
    return orjson.dumps(json_format.MessageToDict(message))


def _query(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _query(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _query(prefix, inner)
    else:
        yield prefix, str(value).lower() if isinstance(value, bool) else str(value)
