"""Builds the OpenAPI 3.1 document of the REST API from the routes that serve requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F

from services.api_gateway.openapi import inference
from services.api_gateway.openapi.comments import comments
from services.api_gateway.openapi.schemas import Schema, Schemas
from services.api_gateway.routing.path_templates import ANY, REST
from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoding import messages, proto_json, scalars
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, INFERENCE_SERVICE

_STATUS = "google.rpc.Status"
_ERRORS = {
    "400": "The request is not valid, or what it is about is not in a state for it.",
    "401": "There is no valid bearer token.",
    "403": "The caller lacks the permission.",
    "404": "There is no such thing.",
    "409": "It exists already, or was changed by someone else.",
    "413": "The body is too large.",
    "415": "The body's Content-Encoding is unknown.",
    "429": "A limit is reached; Retry-After says when to come back.",
    "500": "The platform failed.",
    "503": "A service that is needed does not answer; Retry-After says when to come back.",
    "504": "The deadline passed.",
}
# Levels of nested fields that the document lists as query parameters.
_QUERY_DEPTH = 3


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Returns the whole document as plain data."""
    schemas = Schemas()
    paths: dict[str, Any] = {}
    used: dict[str, int] = {}
    for route in routes:
        path, names = path_of(route)
        number = used[route.rpc_name] = used.get(route.rpc_name, 0) + 1
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, names, number, schemas)
    paths |= _DOCUMENTS
    components = {**schemas.components, **inference.COMPONENTS, _STATUS: _STATUS_SCHEMA}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stellwerk", "version": version, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(o) for o in _operations(paths))],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": (
                        "An access token from POST /v1/tokens:issue, or an API key itself."
                    ),
                }
            },
        },
    }


def path_of(route: Route) -> tuple[str, list[str]]:
    """Returns the route's path as OpenAPI writes it, and the names of its parameters.

    Each variable segment is a parameter of its own.
    """
    template = route.template
    plain = {v.start: v.field for v in template.variables if v.end - v.start == 1}
    names: list[str] = []
    pieces: list[str] = []
    for index, segment in enumerate(template.segments):
        if segment not in (ANY, REST):
            pieces.append(segment)
            continue
        name = plain.get(index) if segment == ANY else "path"
        names.append(name or _singular(template.segments[index - 1]))
        pieces.append("{" + names[-1] + "}")
    return "/" + "/".join(pieces) + (f":{template.verb}" if template.verb else ""), names


def _singular(collection: str) -> str:
    return collection[:-2] if collection.endswith("ses") else collection.removesuffix("s")


def _tag(operation: dict[str, Any]) -> str:
    return str(operation["tags"][0])


def _operations(paths: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for item in paths.values() for operation in item.values()]


def _operation(route: Route, names: list[str], number: int, schemas: Schemas) -> dict[str, Any]:
    service = str(route.rpc.containing_service.name)
    text = comments().get(str(route.rpc.full_name), f"{route.rpc.name}.")
    operation: dict[str, Any] = {
        "operationId": f"{service}_{route.rpc.name}" + ("" if number == 1 else f"_{number}"),
        "tags": [service],
        "summary": text.split(". ")[0].rstrip(".") + ".",
        "description": f"{text}\n\nPermission: `{route.rule.permission}`. RPC: `{route.rpc_name}`.",
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            for name in names
        ],
        "responses": _responses(route, schemas),
    }
    if _speaks_inference(route):
        operation["parameters"] += inference.header_parameters(route)
    if route.body:
        operation["requestBody"] = _request_body(route, schemas)
    if route.body != "*" and not _speaks_inference(route):
        operation["parameters"] += _query(route, schemas)
    if route.rule.permission == ANONYMOUS:
        operation["security"] = []
    return operation


def _speaks_inference(route: Route) -> bool:
    return route.service == INFERENCE_SERVICE


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _request_body(route: Route, schemas: Schemas) -> dict[str, Any]:
    if _speaks_inference(route):
        return inference.request_body(route)
    if messages.takes_raw_body(route):
        return {"required": True, "content": {"application/octet-stream": {}}}
    if route.body == "*":
        return {"content": _json(schemas.of_message(route.rpc.input_type))}
    field: Any = route.rpc.input_type.fields_by_name[route.body]
    return {"content": _json(schemas.of_field(field))}


def _responses(route: Route, schemas: Schemas) -> dict[str, Any]:
    if _speaks_inference(route):
        error = _json(_ref(inference.ERROR))
        if not inference.is_offered(route):
            return {"501": {"description": "It is not offered.", "content": error}}
        content = inference.answer(route)
    else:
        content, error = _content(route, schemas), _json(_ref(_STATUS))
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    if _speaks_inference(route):
        responses["200"] |= inference.answer_headers(route)
    for status in _statuses(route):
        responses[status] = {"description": _ERRORS[status], "content": error}
    if _speaks_inference(route) and route.rpc.name in ("ServerReady", "ModelReady"):
        not_ready = "503" if route.rpc.name == "ServerReady" else "404"
        responses[not_ready] = {"description": "It is not ready.", "content": content}
    responses["default"] = {"description": "Another error.", "content": error}
    return responses


def _content(route: Route, schemas: Schemas) -> dict[str, Any]:
    if messages.gives_raw_body(route):
        return {"application/octet-stream": {}}
    schema = schemas.of_message(messages.response_type(route))
    if route.response_body and messages.response_type(route) is route.rpc.output_type:
        field: Any = route.rpc.output_type.fields_by_name[route.response_body]
        schema = schemas.of_field(field)
    if route.rpc.server_streaming:
        lines = {"type": "object", "properties": {"result": schema, "error": _ref(_STATUS)}}
        return {"application/x-ndjson": {"schema": lines}}
    return _json(schema)


def _statuses(route: Route) -> list[str]:
    """Returns the HTTP statuses of the errors that a caller must expect of this route."""
    left_out = set()
    if route.rule.permission == ANONYMOUS:
        left_out |= {"401"}
    if route.rule.permission in (ANONYMOUS, AUTHENTICATED):
        left_out |= {"403"}
    if not route.rule.changes:
        left_out |= {"409"}
    if not route.body:
        left_out |= {"413", "415"}
    return [status for status in _ERRORS if status not in left_out]


def _query(route: Route, schemas: Schemas) -> list[dict[str, Any]]:
    bound = {variable.field for variable in route.template.variables}
    if route.body:
        bound.add(route.body)
    return _query_fields(route.rpc.input_type, "", bound, schemas, _QUERY_DEPTH)


def _query_fields(
    descriptor: Descriptor, prefix: str, bound: set[str], schemas: Schemas, depth: int
) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for field in descriptor.fields:
        if prefix + field.name in bound:
            continue
        if scalars.is_single_value(field):
            parameters.append(_query_parameter(prefix, field, schemas))
        elif proto_json.is_map(field) and field.message_type is not None:
            value: Any = field.message_type.fields_by_name["value"]
            if scalars.is_single_value(value):
                parameters.append(
                    {
                        **_query_parameter(prefix, field, schemas),
                        "style": "deepObject",
                        "explode": True,
                    }
                )
        elif not field.is_repeated and field.message_type is not None and depth > 1:
            inner: Any = field.message_type
            if not str(inner.full_name).startswith("google."):
                parameters += _query_fields(
                    inner, f"{prefix}{field.name}.", bound, schemas, depth - 1
                )
    return parameters


def _query_parameter(prefix: str, field: F, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.of_field(field)
    text = schema.pop("description", "")
    parameter = {"name": _json_path(prefix) + str(field.json_name), "in": "query", "schema": schema}
    return {**parameter, "description": text} if text else parameter


def _json_path(prefix: str) -> str:
    """Returns a dotted prefix of proto names in camelCase, as the document shows all names."""
    parts = [piece.split("_") for piece in prefix.split(".")]
    return ".".join(words[0] + "".join(word.capitalize() for word in words[1:]) for words in parts)


def _document(summary: str, *content_types: str) -> dict[str, Any]:
    content: dict[str, Any] = {content_type: {} for content_type in content_types}
    responses = {"200": {"description": "Done.", "content": content}}
    return {
        "get": {"tags": ["Documents"], "summary": summary, "security": [], "responses": responses}
    }


_DOCUMENTS = {
    "/": _document("What this is and where to begin.", "application/json", "text/html"),
    "/openapi.json": _document("This document.", "application/json"),
    "/v1/openapi.json": _document("This document.", "application/json"),
    "/docs": _document("This document as a page to read.", "text/html"),
}
_STATUS_SCHEMA: Schema = {
    "type": "object",
    "description": "An error (google.rpc.Status).",
    "required": ["code", "message", "status", "details"],
    "properties": {
        "code": {"type": "integer", "description": "The gRPC status code."},
        "message": {"type": "string", "description": "One sentence that says what to do."},
        "status": {"type": "string", "description": "The gRPC status code's name."},
        "details": {
            "type": "array",
            "description": (
                "A google.rpc.ErrorInfo with the reason; a google.rpc.RetryInfo where trying again"
                " helps."
            ),
            "items": {
                "type": "object",
                "required": ["@type"],
                "properties": {
                    "@type": {"type": "string"},
                    "reason": {"type": "string"},
                    "domain": {"type": "string"},
                    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    "retryDelay": {"type": "string"},
                },
            },
        },
    },
}
_INTRODUCTION = (
    "Store a model, predict from any language. Every call needs a bearer token but those that say"
    " otherwise. Fields are accepted in camelCase and snake_case and answered in camelCase, with"
    " zero values; unknown fields and query parameters are errors. `Grpc-Timeout: 500m` or"
    " `X-Request-Timeout: 0.5` sets a deadline, `X-Request-Id` an id that is found again in the"
    " answer and in the logs."
)
