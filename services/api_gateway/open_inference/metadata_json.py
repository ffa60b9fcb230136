"""What the Open Inference Protocol tells of servers and models, between its messages and its JSON.

Its JSON is not proto3 JSON: numbers stay numbers, names stay snake_case.
"""

from __future__ import annotations

from typing import Any

import orjson

from stellwerk.inference.v2 import grpc_service_pb2 as inference


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
    return orjson.dumps(
        {
            "name": metadata.name,
            "version": metadata.version,
            "extensions": list(metadata.extensions),
        }
    )


def _described(tensor: inference.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
