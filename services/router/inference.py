"""The Open Inference Protocol on top of predictions: its tensors to ours and back. Answers are always raw, because the
commonest client reads nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.chassis.release import platform_version
from services.router.predictions import DEFAULT_METHOD, Predictions, signature_of
from services.router.serving import Serving
from services.wire import tensors
from services.wire.errors import InvalidInput, NotFound
from services.wire.names import parse_inference_name
from services.wire.tensors import DTYPES
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import tensor_pb2

# The field of InferTensorContents that holds a datatype's elements. FP16 and BF16 can only be raw.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_ALL_CONTENTS = frozenset(CONTENTS.values())


def inputs_of(request: Any) -> list[tensor_pb2.Tensor]:
    """The request's inputs as tensors. Raises InvalidInput unless every input is given exactly once, in one form."""
    raw = request.raw_input_contents
    if not raw:
        return [_typed(given) for given in request.inputs]
    if any(given.HasField("contents") for given in request.inputs):
        raise InvalidInput("inputs are given both raw and typed; give them in one of the two forms")
    if len(raw) != len(request.inputs):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; give one for each",
            expected=len(request.inputs),
            got=len(raw),
        )
    return [
        tensor_pb2.Tensor(name=given.name, datatype=given.datatype, shape=given.shape, data=data)
        for given, data in zip(request.inputs, raw, strict=True)
    ]


def _typed(given: Any) -> tensor_pb2.Tensor:
    name, datatype = given.name, given.datatype
    tensor = tensor_pb2.Tensor(name=name, datatype=datatype, shape=given.shape)
    field = CONTENTS.get(datatype)
    if field is None and datatype in tensors.ALL_DATATYPES:
        raise InvalidInput(f"input '{name}' of {datatype} can only be given raw", tensor=name)
    for other in _ALL_CONTENTS - {field}:
        if len(getattr(given.contents, other)):
            raise InvalidInput(f"input '{name}' of {datatype} has elements in {other}", tensor=name)
    if field is None:
        tensors.check(tensor)  # says which datatypes there are
        return tensor
    elements = getattr(given.contents, field)
    count = tensors.element_count(given.shape, name)
    if len(elements) != count:
        raise InvalidInput(
            f"input '{name}' of shape {list(given.shape)} needs {count} elements, got {len(elements)}",
            tensor=name,
            expected=count,
            got=len(elements),
        )
    tensor.data = tensors.join_bytes(elements) if datatype == "BYTES" else _pack(elements, datatype, name)
    return tensor


def _pack(elements: Any, datatype: str, name: str) -> bytes:
    dtype = DTYPES[datatype]
    wide = np.asarray(elements, dtype=dtype if dtype.kind in "bf" else None)
    if dtype.kind in "iu" and wide.size:
        info: Any = np.iinfo(dtype.type)  # type: ignore[type-var]
        if int(wide.min()) < info.min or int(wide.max()) > info.max:
            raise InvalidInput(f"input '{name}' holds a number that does not fit {datatype}", tensor=name)
    return wide.astype(dtype).tobytes()


def method_of(request: Any) -> str:
    """The model's method that the request's parameter "method" names; predict if it names none."""
    parameter = request.parameters.get("method") if "method" in request.parameters else None
    if parameter is None:
        return DEFAULT_METHOD
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput("the parameter 'method' must be a string", field="parameters.method")
    return str(parameter.string_param)


class InferenceServicer:
    """inference.GRPCInferenceService."""

    def __init__(self, predictions: Predictions, serving: Serving, ready: Any, messages: Any) -> None:
        """`ready() -> bool` says whether the router is; `messages` is the module of the protocol's messages."""
        self._predictions, self._serving, self._ready, self._messages = predictions, serving, ready, messages

    async def ServerLive(self, request: Any, _: Any) -> Any:
        return self._messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, _: Any) -> Any:
        return self._messages.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(self, request: Any, _: Any) -> Any:
        return self._messages.ServerMetadataResponse(name="stellwerk", version=platform_version(), extensions=[])

    async def ModelReady(self, request: Any, _: Any) -> Any:
        return self._messages.ModelReadyResponse(ready=await self._model_ready(request.name, request.version))

    async def _model_ready(self, name: str, version: str) -> bool:
        try:
            found = await self._predictions.resolve(parse_inference_name(name, version))
        except (NotFound, InvalidInput):
            return False
        return self._serving.servable(found)

    async def ModelMetadata(self, request: Any, _: Any) -> Any:
        name = parse_inference_name(request.name, request.version)
        version = await self._predictions.resolve(name)
        versions = [str(version.version)] if request.version else await self._predictions.directory.versions(name)
        signature = signature_of(version, DEFAULT_METHOD)
        return self._messages.ModelMetadataResponse(
            name=request.name,
            versions=versions,
            platform=version.format,
            inputs=[self._described(spec) for spec in signature.inputs],
            outputs=[self._described(spec) for spec in signature.outputs],
            properties=_properties(version),
        )

    def _described(self, spec: tensor_pb2.TensorSpec) -> Any:
        return self._messages.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )

    async def ModelInfer(self, request: Any, _: Any) -> Any:
        version = await self._predictions.resolve(parse_inference_name(request.model_name, request.model_version))
        outputs = [output.name for output in request.outputs]
        answer = await self._predictions.predict(version, method_of(request), inputs_of(request), outputs)
        response = self._messages.ModelInferResponse(
            model_name=request.model_name, model_version=str(version.version), id=request.id
        )
        for tensor in answer.outputs:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(tensor.data)
        return response


def _properties(version: repository.ModelVersion) -> dict[str, str]:
    return {"methods": ",".join(signature.method for signature in version.signature), "sha256": version.sha256}
