"""Reads and writes the generate extension: JSON objects keyed by a model's inputs and outputs."""

from __future__ import annotations

from typing import Any

import orjson

from services.api_gateway.open_inference import tensors_json
from services.api_gateway.open_inference.infer_request import checked_parameters, id_of
from services.api_gateway.open_inference.infer_response import plain_outputs, version_of
from services.api_gateway.transcoding.json_body import parse
from services.api_gateway.upstream.replies import ModelReply
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.open_inference import DEFAULT_METHOD, InferRequest, take_parameters

_OWN_KEYS = ("id", "parameters")


def read(
    body: bytes, model: str, version: str, metadata: inference.ModelMetadataResponse
) -> InferRequest:
    """Reads a body: keys that name the model's inputs are tensors, all others are parameters.

    Raises InvalidInput.
    """
    data = parse(body)
    if type(data) is not dict:
        raise InvalidInput("the body must be a JSON object whose keys are the model's inputs")
    request = InferRequest(model, version, "", work_pb2.WorkItem(method=DEFAULT_METHOD))
    specs = {spec.name: spec for spec in metadata.inputs}
    # An input called "id" or "parameters" takes the key from the protocol.
    if "id" not in specs:
        request.id = id_of(data)
    given = {key: value for key, value in data.items() if key in specs or key not in _OWN_KEYS}
    if "parameters" not in specs and data.get("parameters") is not None:
        if type(data["parameters"]) is not dict:
            raise InvalidInput("the parameters of the request must be an object")
        given = {**data["parameters"], **given}
    for name, spec in specs.items():
        if name in given:
            _add(request.work, spec, given.pop(name))
    take_parameters(request, checked_parameters(given, "the request"))
    return request


def write(request: InferRequest, reply: ModelReply) -> bytes:
    """Returns a reply as JSON: an output of one element is that element, any other a flat list."""
    answer: dict[str, Any] = {"id": request.id} if request.id else {}
    answer |= {"model_name": request.model, "model_version": version_of(reply)}
    answer |= plain_outputs(request, reply)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _add(
    work: work_pb2.WorkItem, spec: inference.ModelMetadataResponse.TensorMetadata, value: object
) -> None:
    """Adds an input to the work; its shape is the nesting of its value."""
    nested, shape = value, list[int]()
    while type(nested) is list and len(shape) < len(spec.shape) + 1:
        shape.append(len(nested))
        nested = nested[0] if nested else None
    data = value if type(value) is list else [value]
    _, raw = tensors_json.encode(spec.name, spec.datatype, shape or [1], data)
    work.inputs.add(
        name=spec.name, datatype=spec.datatype, shape=_fitted(shape, list(spec.shape)), data=raw
    )


def _fitted(shape: list[int], wanted: list[int]) -> list[int]:
    """Returns the shape with as many dimensions as `wanted`, the missing ones of size 1.

    A scalar becomes one row of one element.
    """
    missing = len(wanted) - len(shape)
    # Several texts for a model that takes one text a row are rows.
    if missing == 1 and wanted[-1] == 1 and shape != [1]:
        return [*shape, 1]
    return [1] * missing + shape
