"""A model's answer over REST: JSON, and behind it the data of the outputs that were asked for as
binary data.
"""

from __future__ import annotations

from typing import Any

import orjson

from services.api_gateway.http.response import OCTETS, Answer
from services.api_gateway.open_inference import tensors_json
from services.api_gateway.open_inference.infer_request import AS_JSON, Form
from services.api_gateway.upstream.model_calls import Answered
from stellwerk.wire import classification
from stellwerk.wire.open_inference import FINAL, InferRequest

JSON_SIZE = b"inference-header-content-length"
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def write(ask: InferRequest, form: Form, answered: Answered) -> Answer:
    """The answer in the form that was asked for. Raises NotReady for what has no JSON form."""
    described, binary = _described(ask, form, answered)
    head = orjson.dumps(described, option=_NUMPY)
    if not binary:
        return Answer(200, head)
    return Answer(200, b"".join([head, *binary]), OCTETS, [(JSON_SIZE, str(len(head)).encode())])


def write_part(ask: InferRequest, answered: Answered) -> bytes:
    """One of any number of answers, as JSON that says whether it is the last."""
    described, _ = _described(ask, AS_JSON, answered)
    described["parameters"] = {FINAL: answered.final}
    return orjson.dumps(described, option=_NUMPY)


def plain_outputs(ask: InferRequest, answered: Answered) -> dict[str, Any]:
    """The outputs' elements by name, flat; one element stands alone. To be printed with
    OPT_SERIALIZE_NUMPY.
    """
    plain: dict[str, Any] = {}
    for tensor in _outputs(ask, answered):
        data = tensors_json.decode(tensor.name, tensor.datatype, list(tensor.shape), tensor.data)
        plain[tensor.name] = data[0] if len(data) == 1 else data
    return plain


def version_of(answered: Answered) -> str:
    """The version that answered, as the protocol names it: the last part of its resource name."""
    name = answered.model_version
    return name[name.rfind("/") + 1 :]


def _outputs(ask: InferRequest, answered: Answered) -> Any:
    return classification.apply(answered.outputs, ask.classes) if ask.classes else answered.outputs


def _described(
    ask: InferRequest, form: Form, answered: Answered
) -> tuple[dict[str, Any], list[bytes]]:
    """The answer as plain data, and the data of its binary outputs; `id` only where one was
    given.
    """
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for tensor in _outputs(ask, answered):
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        described: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if form.outputs.get(name, form.binary):
            binary.append(tensor.data)
            described["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            described["data"] = tensors_json.decode(name, datatype, shape, tensor.data)
        outputs.append(described)
    answer: dict[str, Any] = {"model_name": ask.model, "model_version": version_of(answered)}
    if ask.id:
        answer["id"] = ask.id
    answer["outputs"] = outputs
    return answer, binary
