"""Makes warm-up calls right after a load, so that no caller waits for a model's first call."""

from __future__ import annotations

import math
from typing import Any

from services.runtime.formats.port import LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import serving_pb2, tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import ModelFailed, Overloaded

METHOD = "predict"
# Bytes of all inputs above which no row is invented: nobody asked for the call, so it must cost
# little.
_MOST_INVENTED = 4 * 1024 * 1024
# Characters of a model's own message that a caller gets to see.
_MESSAGE_LENGTH = 200


def warm_up(
    model: LoadedModel, version: repository_pb2.ModelVersion, *, invent: bool, log: Any
) -> int:
    """Makes the calls that the version's owner stored and returns their number.

    Without stored calls, and if `invent` allows it, calls `predict` with one row of zeros if the
    signature says what that is. A failure of this call is only logged, because the owner never
    promised that the model takes zeros. Raises ModelFailed if a stored call fails, Overloaded if
    memory runs out.
    """
    samples = version.serving.warmup
    for number, sample in enumerate(samples, 1):
        try:
            _call(model, version, sample)
        except MemoryError as exc:
            raise Overloaded(
                "the runtime has not enough memory for the model's warm-up calls"
            ) from exc
        except Exception as exc:
            raise _failed(number, sample, exc) from exc
    if samples or not invent:
        return len(samples)
    row = invented(version)
    if row is None or METHOD in model.streams:
        return 0
    try:
        _call(model, version, row)
    except Exception as exc:
        log.debug("invented_warm_up_failed", model_version=version.name, exc_info=exc)
        return 0
    return 1


def invented(version: repository_pb2.ModelVersion) -> serving_pb2.WarmupCall | None:
    """Returns a call of `predict` with one row of zeros, or None if the signature leaves it open.

    It does so without inputs, with BYTES, with an open dimension beyond the first, and for rows
    of more than 4 MiB.
    """
    specs = next((list(entry.inputs) for entry in version.signature if entry.method == METHOD), [])
    inputs = []
    for spec in specs:
        shape = [1 if index == 0 and size == -1 else size for index, size in enumerate(spec.shape)]
        size = tensors.ITEM_SIZES.get(spec.datatype)
        if (
            size is None
            or any(length < 0 for length in shape)
            or math.prod(shape) * size > _MOST_INVENTED
        ):
            return None
        data = bytes(math.prod(shape) * size)
        inputs.append(
            tensor_pb2.Tensor(name=spec.name, datatype=spec.datatype, shape=shape, data=data)
        )
    if not inputs or sum(len(tensor.data) for tensor in inputs) > _MOST_INVENTED:
        return None
    return serving_pb2.WarmupCall(method=METHOD, inputs=inputs)


def _call(
    model: LoadedModel, version: repository_pb2.ModelVersion, sample: serving_pb2.WarmupCall
) -> None:
    method = sample.method or METHOD
    declared = next((entry.inputs for entry in version.signature if entry.method == method), None)
    if declared:
        tensors.check_against(sample.inputs, declared)
    inputs = {tensor.name: tensors.to_numpy(tensor) for tensor in sample.inputs}
    if method not in model.streams:
        model.call(method, inputs)
        return
    answers = model.stream(method, inputs)
    try:
        next(answers, None)  # the first answer does all that happens only once
    finally:
        getattr(answers, "close", lambda: None)()


def _failed(number: int, sample: serving_pb2.WarmupCall, exc: Exception) -> ModelFailed:
    kind, text = type(exc).__name__, next(iter(str(exc).splitlines()), "")[:_MESSAGE_LENGTH]
    return ModelFailed(
        f"the model was loaded, but its warm-up call {number} of '{(sample.method or METHOD)[:64]}'"
        f" failed: {kind}: {text}",
        exception=kind,
    )
