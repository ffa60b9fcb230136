"""The binary tensor data extension: a JSON header and, after it, raw tensors in one HTTP body."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stellwerk.conformance.expect import Mismatch, json_object, that
from stellwerk.conformance.server.rest import Reply
from stellwerk.conformance.values import Tensor, from_json, unpack

HEADER = "inference-header-content-length"


def encode(
    binary: Sequence[Tensor], plain: Sequence[Tensor] = (), *, excess: bytes = b"", **members: Any
) -> tuple[bytes, dict[str, str]]:
    """Returns body and headers of a request with these inputs, the binary ones first, and `excess`
    bytes after the last.
    """
    inputs = [
        tensor.json(data=None, parameters={"binary_data_size": len(tensor.raw())})
        for tensor in binary
    ] + [tensor.json() for tensor in plain]
    head = json.dumps({"inputs": inputs, **members}).encode()
    body = head + b"".join(tensor.raw() for tensor in binary) + excess
    return body, {HEADER: str(len(head)), "content-type": "application/octet-stream"}


def outputs_of(reply: Reply) -> dict[str, Tensor]:
    """Returns the outputs by name, in their order, from JSON or binary data. Raises Mismatch if the
    reply is not well formed.
    """
    that(reply.status == 200, "status 200", reply.brief())
    head, rest = _split(reply)
    that(isinstance(head.get("outputs"), list), "a list of outputs", head)
    found = {}
    for output in head["outputs"]:
        _well_formed(output)
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            that("data" in output, "data in each output that is not binary", output)
            items = from_json(output["datatype"], output["data"])
        else:
            that("data" not in output, "no data in an output that is binary", output)
            that(len(rest) >= size, f"{size} bytes for {output['name']}", f"{len(rest)} bytes left")
            items, rest = unpack(output["datatype"], rest[:size]), rest[size:]
        parameters = output.get("parameters") or {}
        found[output["name"]] = Tensor(
            output["name"], output["datatype"], tuple(output["shape"]), items, parameters
        )
    that(not rest, "nothing after the last tensor", f"{len(rest)} bytes more")
    return found


def header_of(reply: Reply) -> dict[str, Any]:
    """Returns the JSON part of the reply. Raises Mismatch if there is none."""
    return _split(reply)[0]


def _split(reply: Reply) -> tuple[dict[str, Any], bytes]:
    length = reply.headers.get(HEADER)
    if length is None:
        return json_object(reply), b""
    that(length.isdigit() and int(length) <= len(reply.body), f"{HEADER} within the body", length)
    try:
        head = json.loads(reply.body[: int(length)])
    except ValueError:
        raise Mismatch(f"JSON in the first {length} bytes", reply.brief()) from None
    that(isinstance(head, dict), "a JSON object", head)
    return head, reply.body[int(length) :]


def _well_formed(output: Any) -> None:
    expected = "name, datatype and shape in each output"
    that(
        isinstance(output, dict) and {"name", "datatype", "shape"} <= set(output), expected, output
    )
    shape = output["shape"]
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    that(whole, "a shape of whole numbers", shape)
