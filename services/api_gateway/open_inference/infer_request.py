"""Reads an inference request from JSON, or JSON with binary tensor data.

Tensors go from the body to the work's raw bytes without a message between: this is the gateway's
hottest path. Keys that the protocol does not know are ignored, as other servers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.api_gateway.open_inference import tensors_json
from services.api_gateway.transcoding.json_body import parse
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import InvalidInput, NotImplementedHere
from stellwerk.wire.open_inference import (
    DEFAULT_METHOD,
    InferRequest,
    take_output_parameters,
    take_parameters,
)
from stellwerk.wire.tensors import ITEM_SIZES

# Characters of a tensor's name; the OpenAPI document says the same.
MAX_NAME = 128
# The header that holds the bytes of a body's JSON, where binary tensor data follow it.
JSON_SIZE = b"inference-header-content-length"
_SHARED_MEMORY = "shared_memory_region"
_NONE_CHOSEN: Mapping[str, bool] = {}
_SCALARS = frozenset({str, int, float, bool})


@dataclass(slots=True)
class OutputForm:
    """The form in which a caller wants its outputs: binary data or JSON."""

    # For outputs that `outputs` does not name.
    binary: bool
    outputs: Mapping[str, bool]


AS_JSON = OutputForm(False, _NONE_CHOSEN)
AS_BINARY = OutputForm(True, _NONE_CHOSEN)


def read_request(
    body: bytes, model: str, version: str, json_size: int | None = None
) -> tuple[InferRequest, OutputForm]:
    """Reads a body whose first `json_size` bytes are JSON and whose rest is binary tensor data.

    None stands for a body that is all JSON. Raises InvalidInput, and NotImplementedHere for shared
    memory.
    """
    data = parse(body) if json_size is None else parse(memoryview(body)[:json_size])
    if type(data) is not dict:
        raise InvalidInput("the body must be a JSON object with the key 'inputs'")
    inputs = data.get("inputs")
    if type(inputs) is not list or not inputs:
        raise InvalidInput("the body needs 'inputs': a list of tensors")
    request = InferRequest(model, version, "", work_pb2.WorkItem(method=DEFAULT_METHOD))
    at = len(body) if json_size is None else json_size
    for item in inputs:
        at = _read_input(request.work, item, body, at)
    if at != len(body):
        raise InvalidInput(
            f"the body goes on for {len(body) - at} bytes after the data of its last input"
        )
    if len(inputs) > 1 and len({item["name"] for item in inputs}) < len(inputs):
        raise InvalidInput("an input is given twice")
    return request, _read_rest(request, data)


def json_size_of(header: bytes, body: bytes) -> int:
    """Returns the value of Inference-Header-Content-Length. Raises InvalidInput unless it is a
    number of bytes that the body has.
    """
    text = header.strip()
    if not text.isdigit() or len(text) > 18 or int(text) > len(body):
        raise InvalidInput(
            "Inference-Header-Content-Length must be the number of bytes of the body's JSON, at"
            " most those of the body",
            bytes=len(body),
        )
    return int(text)


def id_of(data: Mapping[str, Any]) -> str:
    """Returns the request's own id, "" if it has none. Raises InvalidInput."""
    value = data.get("id", "")
    if type(value) is not str:
        raise InvalidInput("'id' must be a string")
    return value


def checked_parameters(given: object, of: str) -> dict[str, Any]:
    """Returns the parameters of `of`. Raises InvalidInput unless all values are scalars."""
    if type(given) is not dict:
        raise InvalidInput(f"the parameters of {of} must be an object")
    for key, value in given.items():
        if type(value) not in _SCALARS:
            raise InvalidInput(
                f"the parameter '{key[:64]}' of {of} must be a string, a number, true or false"
            )
    return given


def _read_rest(request: InferRequest, data: dict[str, Any]) -> OutputForm:
    """Reads id, parameters and wanted outputs into the request; returns the outputs' form."""
    if len(data) == 1:
        return AS_JSON
    request.id = id_of(data)
    form = AS_JSON
    if (given := data.get("parameters")) is not None:
        parameters = checked_parameters(given, "the request")
        take_parameters(request, parameters)
        if _flag(parameters, "binary_data_output", "the request"):
            form = AS_BINARY
    outputs = data.get("outputs")
    if outputs is None:
        return form
    if type(outputs) is not list:
        raise InvalidInput("'outputs' must be a list")
    chosen: dict[str, bool] = {}
    for item in outputs:
        _read_output(request, item, chosen)
    return OutputForm(form.binary, chosen) if chosen else form


def _read_output(request: InferRequest, item: Any, binary: dict[str, bool]) -> None:
    name = _name(item, "an output")
    request.work.outputs.append(name)
    if (given := item.get("parameters")) is None:
        return
    parameters = checked_parameters(given, f"output '{name}'")
    _refuse_shared_memory(parameters)
    take_output_parameters(request, name, parameters)
    flag = _flag(parameters, "binary_data", f"output '{name}'")
    if flag is not None:
        binary[name] = flag


def _read_input(work: work_pb2.WorkItem, item: Any, body: bytes, at: int) -> int:
    """Adds an input to the work; its binary data begin at `at`. Returns where the next begin."""
    name = _name(item, "an input")
    datatype, shape, size = item.get("datatype"), item.get("shape"), None
    if (given := item.get("parameters")) is not None:
        parameters = checked_parameters(given, f"input '{name}'")
        _refuse_shared_memory(parameters)
        size = parameters.get("binary_data_size")
    if size is None:
        shape, raw = tensors_json.encode(name, datatype, shape, item.get("data"))
    else:
        shape, count = tensors_json.check_shape(shape, name)
        tensors_json.check_datatype(datatype, name)
        end = _binary_end(name, item, datatype, count, size, at, len(body))
        raw = body[at:end]
        at = end
    work.inputs.add(name=name, datatype=datatype, shape=shape, data=raw)
    return at


def _binary_end(
    name: str, item: dict[str, Any], datatype: str, count: int, size: object, at: int, whole: int
) -> int:
    if type(size) is not int or size < 0:
        raise InvalidInput(
            f"the parameter 'binary_data_size' of input '{name}' must be a number of bytes",
            tensor=name,
        )
    if "data" in item:
        raise InvalidInput(
            f"input '{name}' is given both as data and as binary data; give one of them",
            tensor=name,
        )
    if at + size > whole:
        missing = at + size - whole
        raise InvalidInput(
            f"input '{name}' needs {missing} more bytes of binary data after the JSON", tensor=name
        )
    width = ITEM_SIZES.get(datatype)
    if width is not None and size != count * width:
        raise InvalidInput(
            f"input '{name}' of {datatype} {item['shape']} needs {count * width} bytes of data, got"
            f" {size}",
            tensor=name,
            expected=count * width,
            got=size,
        )
    return at + size


def _name(item: object, what: str) -> str:
    name = item.get("name") if type(item) is dict else None
    if type(name) is not str or not name:
        raise InvalidInput(f"{what} needs a 'name'")
    if len(name) > MAX_NAME:
        raise InvalidInput(f"the name of {what} must have at most {MAX_NAME} characters")
    return name


def _flag(parameters: Mapping[str, Any], name: str, of: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(
            f"the parameter '{name}' of {of} must be true or false", field=f"parameters.{name}"
        )
    return value


def _refuse_shared_memory(parameters: Mapping[str, Any]) -> None:
    if _SHARED_MEMORY in parameters:
        raise NotImplementedHere(
            "shared memory is not offered here; send and take tensors in the body"
        )
