"""Writes a model's reply as JSON, or as JSON with binary tensor data.

Tensors go from the reply's raw bytes to JSON through numpy, whose arrays orjson prints. JSON has no
NaN and no infinity: they are printed as null.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from services.api_gateway.http.response import OCTETS, HttpResponse
from services.api_gateway.open_inference.infer_request import AS_JSON, JSON_SIZE, OutputForm
from services.api_gateway.upstream.replies import GroupReply, ModelReply
from stellwerk.wire import classification
from stellwerk.wire.errors import NotReady, ServiceError
from stellwerk.wire.open_inference import FINAL, InferRequest
from stellwerk.wire.tensors import DTYPES, element_count, split_bytes

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
# Elements as orjson prints them.
JsonArray = npt.NDArray[Any] | list[str]


def write_response(request: InferRequest, form: OutputForm, reply: ModelReply) -> HttpResponse:
    """Returns the reply in the wanted form. Raises NotReady for an output without a JSON form."""
    described, binary = _described(request, form, reply)
    head = orjson.dumps(described, option=_NUMPY)
    if not binary:
        return HttpResponse(200, head)
    headers = [(JSON_SIZE, str(len(head)).encode())]
    return HttpResponse(200, b"".join([head, *binary]), OCTETS, headers)


def write_part(request: InferRequest, reply: ModelReply) -> bytes:
    """Returns one of several replies as JSON, which says whether it is the final one."""
    described, _ = _described(request, AS_JSON, reply)
    described["parameters"] = {FINAL: reply.final}
    return orjson.dumps(described, option=_NUMPY)


def write_error(error: ServiceError) -> bytes:
    """Returns the error as the Open Inference Protocol has it."""
    return orjson.dumps({"error": error.message})


def plain_outputs(request: InferRequest, reply: ModelReply) -> dict[str, Any]:
    """Returns each output's elements by name: a scalar for one element, else a flat array.

    orjson prints them with OPT_SERIALIZE_NUMPY.
    """
    plain: dict[str, Any] = {}
    for tensor in _outputs(request, reply):
        data = decode(tensor.name, tensor.datatype, list(tensor.shape), tensor.data)
        plain[tensor.name] = data[0] if len(data) == 1 else data
    return plain


def version_of(reply: ModelReply | GroupReply) -> str:
    """Returns the version that replied: the last part of its resource name."""
    name = reply.model_version
    return name[name.rfind("/") + 1 :]


def decode(name: str, datatype: str, shape: list[int], raw: bytes) -> JsonArray:
    """Returns an output's elements, flat, for orjson with OPT_SERIALIZE_NUMPY. Raises NotReady for
    BYTES that are not UTF-8.
    """
    if datatype == "BYTES":
        try:
            return [item.decode() for item in split_bytes(raw, element_count(shape, name), name)]
        except UnicodeDecodeError:
            raise NotReady(
                f"output '{name}' holds bytes that are no UTF-8 text and so have no JSON form; "
                "ask for it with the parameter binary_data, or call over gRPC",
                tensor=name,
            ) from None
    if datatype == "BF16":
        widened = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return widened.view("<f4")
    return np.frombuffer(raw, dtype=DTYPES[datatype])


def _outputs(request: InferRequest, reply: ModelReply) -> Any:
    if request.classes:
        return classification.apply(reply.outputs, request.classes)
    return reply.outputs


def _described(
    request: InferRequest, form: OutputForm, reply: ModelReply
) -> tuple[dict[str, Any], list[bytes]]:
    """Returns the response as plain data, and the data of its binary outputs in their order."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for tensor in _outputs(request, reply):
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        described: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if form.outputs.get(name, form.binary):
            binary.append(tensor.data)
            described["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            described["data"] = decode(name, datatype, shape, tensor.data)
        outputs.append(described)
    answer: dict[str, Any] = {"model_name": request.model, "model_version": version_of(reply)}
    # The protocol echoes an id only where the request gave one.
    if request.id:
        answer["id"] = request.id
    answer["outputs"] = outputs
    return answer, binary
