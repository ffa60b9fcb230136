"""The JSON bodies of the Open Inference Protocol as schemas. They follow the protocol, not its proto messages."""

from __future__ import annotations

from typing import Any

from services.wire.tensors import ALL_DATATYPES

Schema = dict[str, Any]
_PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
_DATATYPE: Schema = {"type": "string", "enum": sorted(ALL_DATATYPES)}
_REQUEST_DATA = (
    "The elements, flat or nested as the shape says. Floating datatypes also take the strings NaN, Infinity, -Infinity."
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
        ["name", "shape", "datatype", "data"],
        name=_NAME,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        datatype=_DATATYPE,
        parameters=_PARAMETERS,
        data={"type": "array", "items": {}, "description": data},
    )


_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_OUTPUT: Schema = _object(["name"], name=_NAME, parameters=_PARAMETERS)
COMPONENTS: dict[str, Schema] = {
    "inference.Error": _object(["error"], error={"type": "string"}),
    "inference.Live": _object(["live"], live={"type": "boolean"}),
    "inference.Ready": _object(["ready"], ready={"type": "boolean"}, error={"type": "string"}),
    "inference.ModelReady": _object(
        ["name", "ready"], name={"type": "string"}, ready={"type": "boolean"}, error={"type": "string"}
    ),
    "inference.ServerMetadata": _object(
        ["name", "version", "extensions"], name={"type": "string"}, version={"type": "string"}, extensions=_STRINGS
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
        parameters={**_PARAMETERS, "description": "The parameter method names the model's method."},
        inputs={"type": "array", "minItems": 1, "items": _tensor(_REQUEST_DATA)},
        outputs={"type": "array", "items": _OUTPUT, "description": "The outputs wanted; none for all."},
    ),
    "inference.InferResponse": _object(
        ["model_name", "outputs"],
        model_name={"type": "string"},
        model_version={"type": "string"},
        id={"type": "string"},
        parameters=_PARAMETERS,
        outputs={"type": "array", "items": _tensor(_RESPONSE_DATA)},
    ),
}
# The bodies of answers and requests, by RPC.
ANSWERS: dict[str, str] = {
    "ServerLive": "inference.Live",
    "ServerReady": "inference.Ready",
    "ModelReady": "inference.ModelReady",
    "ServerMetadata": "inference.ServerMetadata",
    "ModelMetadata": "inference.ModelMetadata",
    "ModelInfer": "inference.InferResponse",
}
REQUESTS: dict[str, str] = {"ModelInfer": "inference.InferRequest"}
ERROR = "inference.Error"
