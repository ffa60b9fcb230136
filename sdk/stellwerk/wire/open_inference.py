"""Turns requests of the Open Inference Protocol into work, and outputs into its responses.

Both are the protocol's gRPC messages. Responses hold tensors in raw form, because the commonest
client reads no other. Bounds and rules are those of the protocol and of its extensions for
parameters, classification and schedule policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import classification, tensors
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.frames import tag, varint
from stellwerk.wire.tensors import DTYPES

DEFAULT_METHOD = "predict"
FINAL = "triton_final_response"
EMPTY_FINAL = "triton_enable_empty_final_response"
_RESERVED = "triton_"
_MAX_UINT32 = (1 << 32) - 1
_RAW_CONTENTS = tag(inference.ModelInferResponse, "raw_output_contents")

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
# Elements of a typed tensor, which are read one by one; a larger tensor must be given raw.
MAX_TYPED = 1 << 23


@dataclass(slots=True)
class InferRequest:
    """A caller's request to a model: the work, and the form of its response."""

    model: str
    version: str
    id: str
    work: work_pb2.WorkItem
    # Microseconds that the caller gives it; 0 for the time of the call.
    timeout_us: int = 0
    # Outputs that are wanted as their k best classes, with their k; None for none.
    classes: Mapping[str, int] | None = None
    # Whether a stream of responses must end with a final one even if that holds no outputs.
    empty_final: bool = False


def read(message: inference.ModelInferRequest) -> InferRequest:
    """Reads a ModelInferRequest.

    Raises InvalidInput unless each input is given exactly once, either raw or typed.
    """
    request = InferRequest(
        message.model_name,
        message.model_version,
        message.id,
        work_pb2.WorkItem(method=DEFAULT_METHOD),
    )
    read_inputs(message, request.work)
    if message.parameters:
        take_parameters(request, {name: plain(value) for name, value in message.parameters.items()})
    for output in message.outputs:
        request.work.outputs.append(output.name)
        if output.parameters:
            take_output_parameters(
                request,
                output.name,
                {key: plain(value) for key, value in output.parameters.items()},
            )
    return request


def plain(parameter: inference.InferParameter) -> object:
    """Returns the parameter's value, None if it has none."""
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else None


def take_parameters(request: InferRequest, given: Mapping[str, object]) -> None:
    """Sets the fields of the request that its parameters name; ignores unknown parameters.

    Raises InvalidInput for a value of the wrong type, and for an unknown name that begins with
    "triton_".
    """
    for name, value in given.items():
        if name == "method":
            if not isinstance(value, str):
                raise InvalidInput(
                    "the parameter 'method' must be a string", field="parameters.method"
                )
            request.work.method = value or DEFAULT_METHOD
        elif name == "priority":
            request.work.priority = _whole(name, value, _MAX_UINT32)
        elif name == "timeout":
            request.timeout_us = _whole(name, value, (1 << 63) - 1)
        elif name in ("sequence_start", "sequence_end", EMPTY_FINAL):
            if not isinstance(value, bool):
                raise InvalidInput(
                    f"the parameter '{name}' must be true or false", field=f"parameters.{name}"
                )
            request.empty_final = request.empty_final or (name == EMPTY_FINAL and value)
        elif name == "sequence_id":
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise InvalidInput("the parameter 'sequence_id' must be a whole number or a string")
        elif name.startswith(_RESERVED):
            raise InvalidInput(
                f"the parameter '{name[:64]}' is reserved; names that begin with '{_RESERVED}' are"
            )


def take_output_parameters(request: InferRequest, output: str, given: Mapping[str, object]) -> None:
    """Sets the fields of the request that the parameters of a wanted output name."""
    if "classification" in given:
        count = _whole("classification", given["classification"], _MAX_UINT32)
        request.classes = {**(request.classes or {}), output: count} if count else request.classes


def _whole(name: str, value: object, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise InvalidInput(
            f"the parameter '{name}' must be a whole number from 0 to {highest}",
            field=f"parameters.{name}",
        )
    return value


def read_inputs(request: inference.ModelInferRequest, work: work_pb2.WorkItem) -> None:
    """Adds the request's inputs to the work. Raises InvalidInput as `read` does."""
    raw = request.raw_input_contents
    if not raw:
        for given in request.inputs:
            _typed(
                given, work.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape)
            )
        return
    if len(raw) != len(request.inputs):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; give one"
            " for each",
            expected=len(request.inputs),
            got=len(raw),
        )
    for given, data in zip(request.inputs, raw, strict=True):
        if given.HasField("contents"):
            raise InvalidInput(
                "inputs are given both raw and typed; give them in one of the two forms"
            )
        work.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape, data=data)


def _typed(given: Any, tensor: tensor_pb2.Tensor) -> None:
    name, datatype = given.name, given.datatype
    wanted = CONTENTS.get(datatype)
    if wanted is None and datatype in tensors.ALL_DATATYPES:
        raise InvalidInput(f"input '{name}' of {datatype} can only be given raw", tensor=name)
    for descriptor, _ in given.contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidInput(
                f"input '{name}' of {datatype[:32]} has elements in {descriptor.name}", tensor=name
            )
    if wanted is None:
        tensors.check(tensor)  # says which datatypes there are
        return
    elements = getattr(given.contents, wanted)
    count = tensors.element_count(given.shape, name)
    if datatype == "BYTES":
        tensors.check_text_count(count, name)
    elif count > MAX_TYPED:
        raise InvalidInput(
            f"input '{name}' has {count} elements; give more than {MAX_TYPED} raw", tensor=name
        )
    if len(elements) != count:
        raise InvalidInput(
            f"input '{name}' of shape {list(given.shape)} needs {count} elements, got"
            f" {len(elements)}",
            tensor=name,
            expected=count,
            got=len(elements),
        )
    tensor.data = (
        tensors.join_bytes(elements) if datatype == "BYTES" else _pack(elements, datatype, name)
    )


def _pack(elements: Any, datatype: str, name: str) -> bytes:
    dtype = DTYPES[datatype]
    wide = np.asarray(elements, dtype=dtype if dtype.kind in "bf" else None)
    if dtype.kind in "iu" and wide.size:
        info: Any = np.iinfo(dtype.type)  # type: ignore[type-var]
        if int(wide.min()) < info.min or int(wide.max()) > info.max:
            raise InvalidInput(
                f"input '{name}' holds a number that does not fit {datatype}", tensor=name
            )
    return wide.astype(dtype).tobytes()


def write(
    request: InferRequest, version: str, outputs: Sequence[tensor_pb2.Tensor]
) -> inference.ModelInferResponse:
    """Returns the response; `version` is the resource name of the version that gave the outputs.

    Raises InvalidInput if classes are wanted of an output that has none.
    """
    response = _without_outputs(request, version)
    for tensor in classification.apply(outputs, request.classes) if request.classes else outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.data)
    return response


def serialise(request: InferRequest, version: str, outputs: Sequence[tensor_pb2.Tensor]) -> bytes:
    """Returns what `write` returns, serialised: the outputs' data are copied once, not three times.
    Raises InvalidInput as `write` does.
    """
    response = _without_outputs(request, version)
    contents: list[bytes] = []
    for tensor in classification.apply(outputs, request.classes) if request.classes else outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        data = tensor.data
        contents += (_RAW_CONTENTS, varint(len(data)), data)
    return b"".join([response.SerializeToString(), *contents])


def _without_outputs(request: InferRequest, version: str) -> inference.ModelInferResponse:
    return inference.ModelInferResponse(
        model_name=request.model, model_version=version[version.rfind("/") + 1 :], id=request.id
    )
