"""Describes the bodies of the Open Inference Protocol, by route.

They follow the protocol's JSON, not its proto messages.
"""

from __future__ import annotations

from typing import Any

from services.api_gateway.openapi import management
from services.api_gateway.routing.routes import Route
from stellwerk.wire.tensors import ALL_DATATYPES

Schema = dict[str, Any]
_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
_DATATYPE: Schema = {"type": "string", "enum": sorted(ALL_DATATYPES)}
_REQUEST_DATA = (
    "The elements, flat or nested as the shape says. Floating datatypes also take the strings NaN,"
    " Infinity, -Infinity."
)
_RESPONSE_DATA = "The elements, flat, in row-major order. NaN and the infinities are null."
_METADATA: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _tensor(data: str) -> Schema:
    return _object(
        ["name", "shape", "datatype"],
        name=_NAME,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        datatype=_DATATYPE,
        parameters={
            **_PARAMETERS,
            "description": "binary_data_size, of a tensor whose data follow the JSON as bytes.",
        },
        data={"type": "array", "items": {}, "description": data},
    )


_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_OUTPUT: Schema = _object(
    ["name"],
    name=_NAME,
    parameters={
        **_PARAMETERS,
        "description": "binary_data for its bytes; classification: k for the k best classes.",
    },
)
COMPONENTS: dict[str, Schema] = {
    "inference.Error": _object(["error"], error={"type": "string"}),
    "inference.Live": _object(["live"], live={"type": "boolean"}),
    "inference.Ready": _object(["ready"], ready={"type": "boolean"}, error={"type": "string"}),
    "inference.ModelReady": _object(
        ["name", "ready"],
        name={"type": "string"},
        ready={"type": "boolean"},
        error={"type": "string"},
    ),
    "inference.ServerMetadata": _object(
        ["name", "version", "extensions"],
        name={"type": "string"},
        version={"type": "string"},
        extensions=_STRINGS,
    ),
    "inference.ModelMetadata": _object(
        ["name", "platform", "inputs", "outputs"],
        name={"type": "string"},
        versions=_STRINGS,
        platform={"type": "string"},
        inputs={"type": "array", "items": _METADATA},
        outputs={"type": "array", "items": _METADATA},
        properties={"type": "object", "additionalProperties": {"type": "string"}},
    ),
    "inference.InferRequest": _object(
        ["inputs"],
        id={"type": "string", "description": "Echoed in the answer."},
        parameters={
            **_PARAMETERS,
            "description": (
                "method names the model's method; priority (1 goes first), timeout in microseconds,"
                " sequence_id, binary_data_output for outputs as bytes. Names that begin with"
                " triton_ are reserved."
            ),
        },
        inputs={"type": "array", "minItems": 1, "items": _tensor(_REQUEST_DATA)},
        outputs={
            "type": "array",
            "items": _OUTPUT,
            "description": "The outputs wanted; none for all.",
        },
    ),
    "inference.InferResponse": _object(
        ["model_name", "outputs"],
        model_name={"type": "string"},
        model_version={"type": "string"},
        id={"type": "string"},
        parameters=_PARAMETERS,
        outputs={"type": "array", "items": _tensor(_RESPONSE_DATA)},
    ),
    "inference.GenerateRequest": {
        "type": "object",
        "description": (
            "The model's inputs by name, a scalar or a list each; what else there is are"
            " parameters."
        ),
        "properties": {"id": {"type": "string"}, "parameters": _PARAMETERS},
        "additionalProperties": True,
    },
    "inference.GenerateResponse": {
        **_object(
            ["model_name"],
            id={"type": "string"},
            model_name={"type": "string"},
            model_version={"type": "string"},
        ),
        "description": (
            "The model's outputs by name: a scalar where it is of one element, else a flat list."
        ),
        "additionalProperties": True,
    },
    **management.COMPONENTS,
}
ERROR = "inference.Error"
# Component by RPC or by the last segment of the path, which is looked up first.
_ANSWERS: dict[str, str] = {
    "ServerLive": "inference.Live",
    "ServerReady": "inference.Ready",
    "ModelReady": "inference.ModelReady",
    "ServerMetadata": "inference.ServerMetadata",
    "ModelMetadata": "inference.ModelMetadata",
    "ModelInfer": "inference.InferResponse",
    "ModelStreamInfer": "inference.InferResponse",
    "generate": "inference.GenerateResponse",
    "generate_stream": "inference.GenerateResponse",
    **management.ANSWERS,
}
_REQUESTS: dict[str, str] = {
    "ModelInfer": "inference.InferRequest",
    "ModelStreamInfer": "inference.InferRequest",
    "generate": "inference.GenerateRequest",
    "generate_stream": "inference.GenerateRequest",
    **management.REQUESTS,
}
_JSON, _BYTES, _EVENTS = "application/json", "application/octet-stream", "text/event-stream"
_BINARY = {
    "description": (
        "The JSON, as long as Inference-Header-Content-Length says, and behind it the bytes of the"
        " tensors that have binary_data_size, in their order; with 0 the body is the bytes of the"
        " model's only input."
    )
}
_JSON_SIZE: Schema = {
    "description": "The bytes of the body's JSON, where there are bytes of tensors behind it.",
    "schema": {"type": "integer", "minimum": 0},
}


def is_offered(route: Route) -> bool:
    """Returns whether the route does anything but answer that it is not offered."""
    return _of(route, _ANSWERS) is not None


def request_body(route: Route) -> dict[str, Any]:
    """Returns the request body of a route that takes one."""
    name = _of(route, _REQUESTS)
    if name is None:
        return {"content": {_JSON: {}}}
    content: dict[str, Any] = {_JSON: {"schema": _ref(name)}}
    if name == "inference.InferRequest":
        content[_BYTES] = {"schema": _BINARY}
    return {"required": name not in management.REQUESTS.values(), "content": content}


def header_parameters(route: Route) -> list[dict[str, Any]]:
    """Returns the headers that the route's requests may have beside those of all routes."""
    if _of(route, _REQUESTS) != "inference.InferRequest":
        return []
    return [{"name": "Inference-Header-Content-Length", "in": "header", **_JSON_SIZE}]


def answer_headers(route: Route) -> dict[str, Any]:
    """Returns the headers that the route's responses may have beside those of all routes."""
    binary = _of(route, _ANSWERS) == "inference.InferResponse" and not route.rpc.server_streaming
    return {"headers": {"Inference-Header-Content-Length": _JSON_SIZE}} if binary else {}


def answer(route: Route) -> dict[str, Any]:
    """Returns the content of the response of a route that is offered."""
    name = _of(route, _ANSWERS)
    assert name is not None
    if route.rpc.server_streaming:
        either = {
            "anyOf": [_ref(name), _ref(ERROR)],
            "description": "The data of each event; an error is the last.",
        }
        return {_EVENTS: {"schema": either}}
    content: dict[str, Any] = {_JSON: {"schema": _ref(name)}}
    if name == "inference.InferResponse":
        content[_BYTES] = {"schema": _BINARY}
    return content


def _of(route: Route, names: dict[str, str]) -> str | None:
    return names.get(route.template.segments[-1]) or names.get(str(route.rpc.name))


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
