"""Reads a body that is nothing but the data of a model's only input.

The binary tensor data extension has that form: Inference-Header-Content-Length is 0.
"""

from __future__ import annotations

import math

from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.open_inference import DEFAULT_METHOD, InferRequest
from stellwerk.wire.tensors import ITEM_SIZES, join_bytes


def read(
    body: bytes, model: str, version: str, metadata: inference.ModelMetadataResponse
) -> InferRequest:
    """Returns the request of a body; for a BYTES input the body is its one element.

    One dimension may be of any size (-1) and follows from the number of bytes. Of two, the first
    counts rows and becomes 1. Raises InvalidInput.
    """
    if len(metadata.inputs) != 1:
        raise InvalidInput(
            f"a body without JSON can only be taken for a model of one input, and '{model}' has"
            f" {len(metadata.inputs)}"
        )
    [spec] = metadata.inputs
    request = InferRequest(model, version, "", work_pb2.WorkItem(method=DEFAULT_METHOD))
    if spec.datatype == "BYTES":
        shape, data = _shape(spec, 1), join_bytes([body])
    else:
        count, left = divmod(len(body), ITEM_SIZES[spec.datatype])
        if left:
            raise InvalidInput(
                f"{len(body)} bytes are no whole number of {spec.datatype} elements",
                tensor=spec.name,
            )
        shape, data = _shape(spec, count), body
    request.work.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape, data=data)
    return request


def _shape(spec: inference.ModelMetadataResponse.TensorMetadata, count: int) -> list[int]:
    shape = list(spec.shape)
    if shape.count(-1) == 2 and shape[0] == -1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise InvalidInput(
            f"input '{spec.name}' has several dimensions of any size; say its shape in JSON",
            tensor=spec.name,
        )
    fixed = math.prod(dimension for dimension in shape if dimension != -1)
    if -1 in shape:
        shape[shape.index(-1)] = count // fixed if fixed else 0
    if math.prod(shape) != count:
        raise InvalidInput(
            f"{count} elements do not fill input '{spec.name}' of shape {list(spec.shape)}",
            tensor=spec.name,
        )
    return shape
