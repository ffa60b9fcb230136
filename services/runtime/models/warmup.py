"""The calls that are made right after a model was loaded, so that no caller waits for what happens
only once.
"""

from __future__ import annotations

import math
from typing import Any

from services.runtime.formats.port import LoadedModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import serving_pb2, tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import ModelFailed, Overloaded

METHOD = "predict"
# Nobody asked for an invented row, so it must not cost much: the bytes of all its inputs together.
_MOST_INVENTED = 4 * 1024 * 1024
_MESSAGE_LENGTH = 200


def warm_up(
    model: LoadedModel, version: repository_pb2.ModelVersion, *, invent: bool, log: Any
) -> int:
    """Makes the calls that the version's owner gave; returns how many were made.

    Raises ModelFailed if one fails, Overloaded if memory runs out. Where none were given and
    `invent` allows it, `predict` is called once with one row of zeros, if its signature says what
    that is; a failure of that one is noted and no more, since the owner never said that the model
    takes zeros.
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
    """One row of zeros for `predict`; None where a dimension beyond the first is open, or text is
    expected.
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
        next(answers, None)  # the first of them does whatever happens only once
    finally:
        getattr(answers, "close", lambda: None)()


def _failed(number: int, sample: serving_pb2.WarmupCall, exc: Exception) -> ModelFailed:
    kind, text = type(exc).__name__, next(iter(str(exc).splitlines()), "")[:_MESSAGE_LENGTH]
    return ModelFailed(
        f"the model was loaded, but its warm-up call {number} of '{(sample.method or METHOD)[:64]}'"
        f" failed: {kind}: {text}",
        exception=kind,
    )
