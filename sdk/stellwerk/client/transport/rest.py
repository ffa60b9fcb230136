"""The REST form of requests and responses, by the google.api.http rules of each RPC. Pure.

A path variable takes the field's value, the body takes the named field or all that is left ("*"),
the query takes the rest; names and values are those of the proto3 JSON mapping. Rules:
google/api/http.proto.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf import json_format
from google.protobuf.message import Message

from stellwerk.client.errors import Internal, InvalidInput, Unavailable, identified
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.port import new_request_id, user_agent
from stellwerk.client.transport.rpc import Route, rpc_of
from stellwerk.wire.metadata import REQUEST_ID

# The platform is told the caller's deadline; half a second more lets it say itself what was late.
GRACE_SECONDS = 0.5
# The largest number of milliseconds that a grpc-timeout value may hold.
MAX_MILLISECONDS = 99_999_999
# Connections of one client. As many are kept as may be opened: opening one costs more than a
# prediction.
MAX_CONNECTIONS = 64
RAW_BODY = "google.api.HttpBody"
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class HttpCall:
    """An HTTP request without its address: path and query are encoded; a body of None means that
    there is none.
    """

    method: str
    target: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class RestCall:
    """One HTTP request as it is sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    request_id: str


class RestForm:
    """Makes the HTTP requests of one client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = endpoint.url.rstrip("/")
        self._headers = {
            "user-agent": user_agent(),
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
        }
        if endpoint.token:
            self._headers["authorization"] = f"Bearer {endpoint.token}"

    def call(self, request: Message, timeout: float) -> RestCall:
        """Returns the HTTP request of a request message; `timeout` is in seconds."""
        http = to_http(request)
        request_id = new_request_id()
        milliseconds = min(max(int(timeout * 1000), 1), MAX_MILLISECONDS)
        headers = {**self._headers, "grpc-timeout": f"{milliseconds}m", REQUEST_ID: request_id}
        if http.body is not None:
            headers["content-type"] = "application/json"
        return RestCall(http.method, self.address + http.target, headers, http.body, request_id)

    def upload(self, request: Message, size: int, timeout: float) -> RestCall:
        """Returns the HTTP request whose raw body of `size` bytes is sent beside it."""
        sent = self.call(request, timeout)
        sent.headers["content-type"] = "application/octet-stream"
        sent.headers["content-length"] = str(size)
        return sent


def to_http(request: Message) -> HttpCall:
    """Returns the request as its RPC's first route whose path fits the names in it.

    A body that is raw bytes (HttpBody) is left out: it is streamed. Raises InvalidInput if no
    route fits.
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


def read_response(request: Message, body: bytes, request_id: str = "") -> Message:
    """Returns the JSON body as the response of the request's RPC; fields that a newer platform
    added are skipped. Raises Internal if the body is something else.
    """
    rpc = rpc_of(request)
    response = rpc.response()
    try:
        fields = json.loads(body)
        if rpc.response_body:
            fields = {rpc.response_body: fields}
        return json_format.ParseDict(fields, response, ignore_unknown_fields=True)
    except (ValueError, json_format.ParseError) as exc:
        error = Internal(
            "the platform's answer is not the JSON that this call gives; is the address right?"
        )
        raise identified(error, request_id) from exc


def untrusted(address: str) -> Unavailable:
    """Returns the error for a certificate of an authority that is not trusted."""
    return Unavailable(
        f"the certificate of {address} is not trusted; give its authority's certificate as `ca`",
        retry_after_ms=0,
        address=address,
    )


def no_http(address: str) -> Unavailable:
    """Returns the error for an address that answers in another protocol than HTTP/1.1."""
    return Unavailable(
        f"{address} does not speak HTTP/1.1; if it is the port of the gRPC API, give"
        f" {address.replace('http', 'grpc', 1)}",
        retry_after_ms=0,
        address=address,
    )


def broken_off(address: str) -> Unavailable:
    """Returns the error for a connection that ended during a call."""
    return Unavailable(
        f"the connection to {address} broke off before the answer came",
        retry_after_ms=0,
        address=address,
    )


def _expand(route: Route, request: Message) -> str | None:
    """Returns the path with the request's values in it, or None if they do not fit."""
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
    fields = json_format.MessageToDict(message)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _query(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _query(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _query(prefix, inner)
    else:
        yield prefix, str(value).lower() if isinstance(value, bool) else str(value)
