"""Reads and writes the JSON bodies of the Open Inference Protocol's management extensions.

As in all of the protocol's JSON, numbers stay numbers, names are snake_case and enums are words.
Keys that the protocol does not know are ignored.
"""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf.message import Message

from services.api_gateway.transcoding.json_body import parse
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.errors import InvalidInput

_MAX_UINT32 = (1 << 32) - 1
_INT64 = range(-(1 << 63), 1 << 63)


def plain(message: Message) -> dict[str, Any]:
    """Returns a message as JSON data: with zero values, without messages that are not set."""
    data: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        inner: Any = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            data[field.name] = {key: plain(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            data[field.name] = [_value(field, item) for item in value]
        elif inner is None or message.HasField(field.name):
            data[field.name] = _value(field, value)
    return data


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


def read_index(body: bytes) -> inference.RepositoryIndexRequest:
    """Reads a request for the repository index; its body may be empty. Raises InvalidInput."""
    data = _object(body)
    ready, bucket = data.get("ready", False), data.get("repository_name", "")
    if not isinstance(ready, bool):
        raise InvalidInput("'ready' must be true or false", field="ready")
    if not isinstance(bucket, str):
        raise InvalidInput("'repository_name' must be a string", field="repository_name")
    return inference.RepositoryIndexRequest(ready=ready, repository_name=bucket)


def write_index(response: inference.RepositoryIndexResponse) -> bytes:
    """Returns the index as an array, with state and reason only of models that have them."""
    return orjson.dumps(
        [
            {
                "name": model.name,
                "version": model.version,
                **({"state": model.state} if model.state else {}),
                **({"reason": model.reason} if model.reason else {}),
            }
            for model in response.models
        ]
    )


def read_parameters(body: bytes, target: Any) -> None:
    """Reads the parameters of a request to load or unload a model into `target`.

    The body may be empty. Raises InvalidInput.
    """
    parameters = _object(body).get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise InvalidInput("'parameters' must be an object", field="parameters")
    for key, value in parameters.items():
        match value:
            case bool():
                target[key].bool_param = value
            case int() if value in _INT64:
                target[key].int64_param = value
            case str():
                target[key].string_param = value
            case _:
                raise InvalidInput(
                    f"the parameter '{key[:64]}' must be a string, a whole number, true or false",
                    field="parameters",
                )


def read_trace_settings(body: bytes, request: inference.TraceSettingRequest) -> None:
    """Reads the trace settings to change: each a string, a whole number, a list of strings, or null
    for the default. Raises InvalidInput.
    """
    for name, value in _object(body).items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        request.settings[name].SetInParent()
        for item in values:
            if isinstance(item, bool) or not isinstance(item, str | int):
                raise InvalidInput(
                    f"the setting '{name[:64]}' must be a string, a whole number, a list of strings"
                    " or null",
                    setting=name[:64],
                )
            request.settings[name].value.append(str(item))


def write_trace_settings(response: inference.TraceSettingResponse) -> bytes:
    """Returns the trace settings as JSON: the levels are a list, the others one string each."""
    return orjson.dumps(
        {
            name: list(setting.value) if name == "trace_level" else ",".join(setting.value)
            for name, setting in sorted(response.settings.items())
        }
    )


def read_log_settings(body: bytes, request: inference.LogSettingsRequest) -> None:
    """Reads the log settings to change: each a string, a whole number, true, false, or null for the
    default. Raises InvalidInput.
    """
    for name, value in _object(body).items():
        setting = request.settings[name]
        match value:
            case bool():
                setting.bool_param = value
            case int() if 0 <= value <= _MAX_UINT32:
                setting.uint32_param = value
            case str():
                setting.string_param = value
            case None:
                setting.SetInParent()
            case _:
                raise InvalidInput(
                    f"the setting '{name[:64]}' must be a string, a whole number from 0, true,"
                    " false or null",
                    setting=name[:64],
                )


def write_log_settings(response: inference.LogSettingsResponse) -> bytes:
    """Returns the log settings as JSON."""
    settings = sorted(response.settings.items())
    return orjson.dumps(
        {
            name: getattr(value, str(value.WhichOneof("parameter_choice")))
            for name, value in settings
        }
    )


def _object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a body, an empty one for an empty body."""
    data = parse(body) if body.strip() else {}
    if not isinstance(data, dict):
        raise InvalidInput("the body must be a JSON object")
    return data
