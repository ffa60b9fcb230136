"""Requests and answers of the Open Inference Protocol between JSON and its messages.

Its JSON is not proto3 JSON (numbers stay numbers, names stay snake_case), so it has a codec of its own, without
`json_format`: this is the hottest path of the gateway. Keys that the protocol does not know are ignored, as others do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from inference import grpc_service_pb2 as inference
from services.api_gateway import tensors_json
from services.api_gateway.json_reader import parse
from services.wire.errors import Internal, InvalidInput

# They steer the binary form of REST, which is another protocol extension, and mean nothing behind it.
_REST_ONLY = frozenset({"binary_data", "binary_data_output", "binary_data_size"})
_MAX_NAME = 128


def read_request(body: bytes, model_name: str, model_version: str) -> inference.ModelInferRequest:
    """The call that a JSON body asks for, with raw tensors. Raises InvalidInput."""
    data = parse(body)
    if not isinstance(data, dict):
        raise InvalidInput("the body must be a JSON object with the key 'inputs'")
    request = inference.ModelInferRequest(model_name=model_name, model_version=model_version, id=_id(data))
    _parameters(request.parameters, data.get("parameters"), "the request")
    inputs = data.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("the body needs 'inputs': a list of tensors")
    raw = request.raw_input_contents
    for item in inputs:
        raw.append(_read_input(request, item))
    for item in _list(data, "outputs"):
        name = _name(item, "an output")
        _parameters(request.outputs.add(name=name).parameters, item.get("parameters"), f"output '{name}'")
    return request


def write_response(response: inference.ModelInferResponse) -> bytes:
    """The answer as JSON, its data flat; `id` only where one was given."""
    if len(response.raw_output_contents) != len(response.outputs):
        raise Internal("the model's answer has another number of outputs than of contents")
    outputs = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        shape = list(output.shape)
        described: dict[str, Any] = {"name": output.name, "shape": shape, "datatype": output.datatype}
        if output.parameters:
            described["parameters"] = plain_parameters(output.parameters)
        described["data"] = tensors_json.decode(output.name, output.datatype, shape, raw)
        outputs.append(described)
    answer: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        answer["id"] = response.id
    if response.parameters:
        answer["parameters"] = plain_parameters(response.parameters)
    answer["outputs"] = outputs
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def write_model_metadata(metadata: inference.ModelMetadataResponse) -> bytes:
    """A model's description as JSON."""
    answer: dict[str, Any] = {
        "name": metadata.name,
        "versions": list(metadata.versions),
        "platform": metadata.platform,
        "inputs": [_described(tensor) for tensor in metadata.inputs],
        "outputs": [_described(tensor) for tensor in metadata.outputs],
    }
    if metadata.properties:
        answer["properties"] = dict(metadata.properties)
    return orjson.dumps(answer)


def write_server_metadata(metadata: inference.ServerMetadataResponse) -> bytes:
    """The server's description as JSON."""
    return orjson.dumps({"name": metadata.name, "version": metadata.version, "extensions": list(metadata.extensions)})


def plain_parameters(parameters: Mapping[str, inference.InferParameter]) -> dict[str, Any]:
    """Parameters as JSON values."""
    plain = {}
    for key, parameter in parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        plain[key] = getattr(parameter, chosen) if chosen else None
    return plain


def _described(tensor: inference.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _id(data: dict[str, Any]) -> str:
    value = data.get("id", "")
    if not isinstance(value, str):
        raise InvalidInput("'id' must be a string")
    return value


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"'{key}' must be a list")
    return value


def _name(item: object, what: str) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{what} needs a 'name'")
    if len(name) > _MAX_NAME:
        raise InvalidInput(f"the name of {what} must have at most {_MAX_NAME} characters")
    return name


def _read_input(request: inference.ModelInferRequest, item: Any) -> bytes:
    name = _name(item, "an input")
    shape, count = tensors_json.check_shape(item.get("shape"), name)
    parameters = item.get("parameters")
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise InvalidInput(f"input '{name}' announces binary data; send its elements as 'data'", tensor=name)
    raw = tensors_json.encode(name, item.get("datatype"), shape, count, item.get("data"))
    tensor = request.inputs.add(name=name, datatype=item["datatype"], shape=shape)
    _parameters(tensor.parameters, parameters, f"input '{name}'")
    return raw


def _parameters(target: Any, data: object, of: str) -> None:
    if data is None:
        return
    if not isinstance(data, dict):
        raise InvalidInput(f"the parameters of {of} must be an object")
    for key, value in data.items():
        if key in _REST_ONLY:
            continue
        match value:
            case bool():
                target[key].bool_param = value
            case int() if -(1 << 63) <= value < 1 << 63:
                target[key].int64_param = value
            case int() if value < 1 << 64:
                target[key].uint64_param = value
            case float():
                target[key].double_param = value
            case str():
                target[key].string_param = value
            case _:
                raise InvalidInput(f"the parameter '{key[:64]}' of {of} must be a string, a number, true or false")
