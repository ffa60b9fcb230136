"""Describes the JSON bodies of the Open Inference Protocol's management extensions."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "format": "uint64"}


def _object(required: list[str], text: str = "", **properties: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {**schema, "description": text} if text else schema


def _list(items: Schema, text: str = "") -> Schema:
    schema: Schema = {"type": "array", "items": items}
    return {**schema, "description": text} if text else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/inference.{name}"}


def _durations(*names: str, **more: Schema) -> Schema:
    properties = {**more, **{name: _ref("StatisticDuration") for name in names}}
    return {"type": "object", "required": list(properties), "properties": properties}


_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_TENSOR = _object(
    ["name", "data_type", "dims"],
    name=_TEXT,
    data_type={"type": "string", "pattern": "^TYPE_[A-Z0-9]+$"},
    dims=_list(
        {"type": "integer", "minimum": -1},
        "The shape, without the dimension of the batch where max_batch_size is not 0; -1 for any"
        " size.",
    ),
)
_QUEUE_POLICY = _object(
    [],
    timeout_action={"type": "string", "enum": ["REJECT", "DELAY"]},
    default_timeout_microseconds=_COUNT,
    allow_timeout_override=_FLAG,
    max_queue_size=_COUNT,
)
_BATCHING = _object(
    [],
    "How requests are joined into one call.",
    preferred_batch_size=_list(_COUNT),
    max_queue_delay_microseconds=_COUNT,
    preserve_ordering=_FLAG,
    priority_levels=_COUNT,
    default_priority_level=_COUNT,
    default_queue_policy=_QUEUE_POLICY,
)
_MODEL_CONFIG = _object(
    ["name", "platform", "backend", "max_batch_size", "input", "output"],
    name=_TEXT,
    platform=_TEXT,
    backend=_TEXT,
    max_batch_size={
        **_COUNT,
        "description": "Rows that are joined into one call; 0 if requests are never joined.",
    },
    input=_list(_TENSOR),
    output=_list(_TENSOR),
    dynamic_batching=_BATCHING,
    parameters={
        "type": "object",
        "additionalProperties": _object(["string_value"], string_value=_TEXT),
    },
    model_transaction_policy=_object(["decoupled"], decoupled=_FLAG),
    response_cache=_object(["enable"], enable=_FLAG),
)
_STATISTICS = _object(
    [
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "batch_stats",
    ],
    "What was counted since the router started.",
    name=_TEXT,
    version=_TEXT,
    last_inference={**_COUNT, "description": "Milliseconds since 1970."},
    inference_count={**_COUNT, "description": "Rows that the model answered."},
    execution_count={**_COUNT, "description": "Calls of the model."},
    inference_stats=_durations("success", "fail", "queue", *_COMPUTE, "cache_hit", "cache_miss"),
    batch_stats=_list(_durations(*_COMPUTE, batch_size=_COUNT)),
    memory_usage=_list(
        _object(["type", "id", "byte_size"], type=_TEXT, id={"type": "integer"}, byte_size=_COUNT)
    ),
    response_stats={
        "type": "object",
        "description": "Of models that give several answers: by the answer's place.",
        "additionalProperties": _durations(
            "compute_infer", "compute_output", "success", "fail", "empty_response", "cancel"
        ),
    },
)
_INDEX_ENTRY = _object(
    ["name", "version"],
    name=_TEXT,
    version=_TEXT,
    state={
        "type": "string",
        "enum": ["READY", "LOADING", "UNAVAILABLE"],
        "description": "Left out for a version that is stored and not loaded.",
    },
    reason=_TEXT,
)
_PARAMETER_VALUES: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
_TRACE_VALUE: Schema = {"type": ["string", "integer", "array", "null"], "items": _TEXT}
_LOG_VALUE: Schema = {"type": ["string", "integer", "boolean", "null"]}

COMPONENTS: dict[str, Schema] = {
    "inference.StatisticDuration": _object(
        ["count", "ns"], count=_COUNT, ns={**_COUNT, "description": "Nanoseconds."}
    ),
    "inference.ModelConfig": _MODEL_CONFIG,
    "inference.ModelStatistics": _STATISTICS,
    "inference.Statistics": _object(["model_stats"], model_stats=_list(_ref("ModelStatistics"))),
    "inference.IndexRequest": _object(
        [],
        ready={**_FLAG, "description": "Only versions that answer now."},
        repository_name={**_TEXT, "description": "A bucket; none for all."},
    ),
    "inference.Index": _list(
        _INDEX_ENTRY, "Each model's newest version, and its others that are loaded."
    ),
    "inference.LoadRequest": _object(
        [],
        parameters={
            **_PARAMETER_VALUES,
            "description": "None is taken: what is served is what is stored.",
        },
    ),
    "inference.UnloadRequest": _object(
        [],
        parameters={
            **_PARAMETER_VALUES,
            "description": "unload_dependents is taken and does nothing.",
        },
    ),
    "inference.Nothing": {"type": "object", "maxProperties": 0},
    "inference.TraceSettings": {
        "type": "object",
        "description": (
            "trace_level (OFF or TIMESTAMPS), trace_rate (n: one call in n), trace_count (calls"
            " still to be traced, -1 for no limit); trace_file, log_frequency and trace_mode cannot"
            " be changed. null for the default."
        ),
        "additionalProperties": _TRACE_VALUE,
    },
    "inference.LogSettings": {
        "type": "object",
        "description": (
            "log_info, log_warning, log_error (true or false), log_verbose_level (0 for none);"
            " log_file and log_format cannot be changed. null for the value at start."
        ),
        "additionalProperties": _LOG_VALUE,
    },
}
ANSWERS: dict[str, str] = {
    "ModelConfig": "inference.ModelConfig",
    "ModelStatistics": "inference.Statistics",
    "RepositoryIndex": "inference.Index",
    "RepositoryModelLoad": "inference.Nothing",
    "RepositoryModelUnload": "inference.Nothing",
    "TraceSetting": "inference.TraceSettings",
    "LogSettings": "inference.LogSettings",
}
# Each of these bodies may be left out.
REQUESTS: dict[str, str] = {
    "RepositoryIndex": "inference.IndexRequest",
    "RepositoryModelLoad": "inference.LoadRequest",
    "RepositoryModelUnload": "inference.UnloadRequest",
    "TraceSetting": "inference.TraceSettings",
    "LogSettings": "inference.LogSettings",
}
