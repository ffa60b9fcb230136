"""Describes message types as JSON Schema (2020-12), in the proto3 JSON that the gateway speaks."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as F

from services.api_gateway.openapi.comments import comments
from services.api_gateway.transcoding import proto_json

Schema = dict[str, Any]
# 64-bit integers are printed as strings and read as either.
_INT64: Schema = {"type": ["string", "integer"], "format": "int64"}
_UINT64: Schema = {"type": ["string", "integer"], "format": "uint64"}
_INT32: Schema = {"type": "integer", "format": "int32"}
_UINT32: Schema = {"type": "integer", "format": "uint32", "minimum": 0}
_NUMBER: Schema = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_BYTES: Schema = {"type": "string", "contentEncoding": "base64"}
_SCALARS: dict[int, Schema] = {
    F.TYPE_INT32: _INT32,
    F.TYPE_SINT32: _INT32,
    F.TYPE_SFIXED32: _INT32,
    F.TYPE_UINT32: _UINT32,
    F.TYPE_FIXED32: _UINT32,
    F.TYPE_INT64: _INT64,
    F.TYPE_SINT64: _INT64,
    F.TYPE_SFIXED64: _INT64,
    F.TYPE_UINT64: _UINT64,
    F.TYPE_FIXED64: _UINT64,
    F.TYPE_FLOAT: _NUMBER,
    F.TYPE_DOUBLE: _NUMBER,
    F.TYPE_BOOL: {"type": "boolean"},
    F.TYPE_STRING: {"type": "string"},
    F.TYPE_BYTES: _BYTES,
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Field names joined by commas."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.BoolValue": {"type": "boolean"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BytesValue": _BYTES,
    "google.protobuf.Int32Value": _INT32,
    "google.protobuf.UInt32Value": _UINT32,
    "google.protobuf.Int64Value": _INT64,
    "google.protobuf.UInt64Value": _UINT64,
    "google.protobuf.FloatValue": _NUMBER,
    "google.protobuf.DoubleValue": _NUMBER,
}


class Schemas:
    """The schemas of a document, each once, by the full name of its message."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of_message(self, descriptor: Descriptor) -> Schema:
        """Returns a reference to the message's schema, or the schema of a well-known type."""
        name = str(descriptor.full_name)
        if name in _WELL_KNOWN:
            return _WELL_KNOWN[name]
        if name not in self.components:
            schema = self.components[name] = _described({"type": "object"}, name)
            properties = {str(field.json_name): self.of_field(field) for field in descriptor.fields}
            if properties:
                schema["properties"] = properties
        return {"$ref": f"#/components/schemas/{name}"}

    def of_field(self, field: F) -> Schema:
        """Returns the schema of a field's value."""
        if proto_json.is_map(field) and field.message_type is not None:
            value: Any = field.message_type.fields_by_name["value"]
            schema: Schema = {"type": "object", "additionalProperties": self._single(value)}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field)}
        else:
            schema = self._single(field)
        return _described(schema, str(field.full_name))

    def _single(self, field: F) -> Schema:
        if field.message_type is not None:
            message: Any = field.message_type
            return self.of_message(message)
        if field.enum_type is not None:
            return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
        return _SCALARS[field.type]


def _described(schema: Schema, full_name: str) -> Schema:
    text = comments().get(full_name)
    return {**schema, "description": text} if text else dict(schema)
