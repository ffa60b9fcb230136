"""Checks the serving policy that a version's creator asks for: numbers in range, warm-up calls that
fit the model's signature.
"""

from __future__ import annotations

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.type.v1 import serving_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput

# The bounds keep a mistyped number from exhausting a router's or a runtime's memory; none is a
# measured optimum.
MAX_BATCH_ROWS = 65_536
MAX_PREFERRED_SIZES = 32
MAX_DELAY_US = 10_000_000
MAX_QUEUE_REQUESTS = 1_000_000
MAX_PRIORITIES = 100
MAX_TIMEOUT_MS = 24 * 3600 * 1000
MAX_WARMUP_CALLS = 16

# Field of the serving policy → its largest value.
_BOUNDS = {
    "max_batch_size": MAX_BATCH_ROWS,
    "max_queue_delay_us": MAX_DELAY_US,
    "max_queue_size": MAX_QUEUE_REQUESTS,
    "priority_levels": MAX_PRIORITIES,
    "default_timeout_ms": MAX_TIMEOUT_MS,
    "latency_objective_ms": MAX_TIMEOUT_MS,
}


def check_serving(version: pb.ModelVersion) -> None:
    """Checks `version.serving`. Raises InvalidInput for a number out of range, and for a warm-up
    call that does not fit the version's signature.
    """
    serving = version.serving
    for field, limit in _BOUNDS.items():
        if getattr(serving, field) > limit:
            raise InvalidInput(f"serving.{field} may be {limit} at most", field=f"serving.{field}")
    if serving.default_priority > serving.priority_levels:
        raise InvalidInput(
            "serving.default_priority must be one of serving.priority_levels",
            field="serving.default_priority",
        )
    _check_sizes(serving)
    if len(serving.warmup) > MAX_WARMUP_CALLS:
        raise InvalidInput(
            f"serving.warmup may have {MAX_WARMUP_CALLS} calls", field="serving.warmup"
        )
    for call in serving.warmup:
        _check_warmup(call, version)


def _check_sizes(serving: serving_pb2.ServingPolicy) -> None:
    sizes = list(serving.preferred_batch_sizes)
    highest = serving.max_batch_size or MAX_BATCH_ROWS
    if (
        len(sizes) > MAX_PREFERRED_SIZES
        or any(not 0 < size <= highest for size in sizes)
        or len(set(sizes)) != len(sizes)
    ):
        raise InvalidInput(
            f"serving.preferred_batch_sizes must be up to {MAX_PREFERRED_SIZES} different numbers"
            f" from 1 to {highest}",
            field="serving.preferred_batch_sizes",
        )


def _check_warmup(call: serving_pb2.WarmupCall, version: pb.ModelVersion) -> None:
    method = call.method or "predict"
    if not version.signature:
        for tensor in call.inputs:
            tensors.check(tensor)
        return
    for signature in version.signature:
        if signature.method == method:
            tensors.check_against(call.inputs, signature.inputs)
            return
    raise InvalidInput(
        f"serving.warmup calls the method '{method[:64]}', which the model has not",
        method=method[:64],
    )
