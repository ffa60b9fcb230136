"""Describes how a model version is served, in the words of the protocol's model configuration
extension. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stellwerk.inference.v2 import model_config_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import serving_pb2, tensor_pb2
from stellwerk.wire.open_inference import DEFAULT_METHOD

# The one datatype that the protocol's enum names otherwise. protoc's stubs give its values as int.
_TYPE_STRING = "TYPE_STRING"
_TYPES: Callable[[str], Any] = messages.DataType.Value
# Rows that a runtime batches by default, of a model whose owner set no bound.
_USUAL_BATCH_SIZE = 256
_ESTIMATORS = frozenset({"skops", "pickle"})


def described_signature(version: repository.ModelVersion) -> tensor_pb2.MethodSignature:
    """Returns the signature that stands for the model where a description has room for one.

    That is the signature of predict, else of the first method, or an empty one if the owner
    declared none.
    """
    for signature in version.signature:
        if signature.method == DEFAULT_METHOD:
            return signature
    return (
        version.signature[0]
        if version.signature
        else tensor_pb2.MethodSignature(method=DEFAULT_METHOD)
    )


def properties(version: repository.ModelVersion) -> dict[str, str]:
    """Returns facts about a version that the protocol has no field for."""
    return {
        "methods": ",".join(signature.method for signature in version.signature),
        "sha256": version.sha256,
    }


def config_of(name: str, version: repository.ModelVersion) -> messages.ModelConfig:
    """Returns the configuration of a version under the name that its caller uses.

    Shapes lack the dimension of the batch if there is one, that is, if max_batch_size is not 0.
    """
    signature, policy = described_signature(version), version.serving
    rows = _batch_size(signature, policy, _works_by_rows(version))
    skip = 1 if rows else 0
    config = messages.ModelConfig(
        name=name,
        platform=version.format,
        backend=version.format,
        max_batch_size=rows,
        input=[
            messages.ModelInput(
                name=spec.name, data_type=_data_type(spec.datatype), dims=spec.shape[skip:]
            )
            for spec in signature.inputs
        ],
        output=[
            messages.ModelOutput(
                name=spec.name, data_type=_data_type(spec.datatype), dims=spec.shape[skip:]
            )
            for spec in signature.outputs
        ],
        model_transaction_policy=messages.ModelTransactionPolicy(decoupled=signature.decoupled),
        response_cache=messages.ModelResponseCache(enable=policy.response_cache),
    )
    if rows:
        config.dynamic_batching.CopyFrom(_batching(policy))
    for key, value in properties(version).items():
        config.parameters[key].string_value = value
    return config


def _batch_size(
    signature: tensor_pb2.MethodSignature, policy: serving_pb2.ServingPolicy, by_rows: bool
) -> int:
    """Returns the rows that are batched at most, 0 for a model whose requests are never batched. A
    request may bring more.
    """
    specs = [*signature.inputs, *signature.outputs]
    begin_with_rows = bool(specs) and all(
        len(spec.shape) > 0 and spec.shape[0] == -1 for spec in specs
    )
    if not begin_with_rows or policy.max_batch_size == 1:
        return 0
    return policy.max_batch_size or (_USUAL_BATCH_SIZE if by_rows else 0)


def _works_by_rows(version: repository.ModelVersion) -> bool:
    """Returns whether the model's rows are batched though its owner set no bound; the rule is the
    runtime's (decision 14).
    """
    option = version.format_options.get("batching", "")
    return option == "rows" or (option != "off" and version.format in _ESTIMATORS)


def _batching(policy: serving_pb2.ServingPolicy) -> messages.ModelDynamicBatching:
    levels = policy.priority_levels
    return messages.ModelDynamicBatching(
        preferred_batch_size=policy.preferred_batch_sizes,
        max_queue_delay_microseconds=policy.max_queue_delay_us,
        priority_levels=levels,
        default_priority_level=policy.default_priority or (levels + 1) // 2,
        default_queue_policy=messages.ModelQueuePolicy(
            timeout_action=messages.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=policy.default_timeout_ms * 1000,
            allow_timeout_override=True,
            max_queue_size=policy.max_queue_size,
        ),
    )


def _data_type(datatype: str) -> Any:
    return _TYPES(_TYPE_STRING if datatype == "BYTES" else f"TYPE_{datatype}")
