"""Writes the responses to members of a group: what they share is written once.

Each response is, byte for byte, the one that `infer_response.write_response` writes for the member
alone.
"""

from __future__ import annotations

from typing import Any

import orjson

from services.api_gateway.http.response import JSON, OCTETS, Headers, HttpResponse
from services.api_gateway.open_inference.infer_request import JSON_SIZE, OutputForm
from services.api_gateway.open_inference.infer_response import decode, version_of, write_response
from services.api_gateway.upstream.replies import GroupReply
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.tensors import ITEM_SIZES, element_count

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class GroupResponses:
    """The responses to members of one group that asked in the same way, but for their ids."""

    __slots__ = ("_binary", "_form", "_group", "_head", "_pieces", "_plain", "_request", "_texts")

    def __init__(self, request: InferRequest, form: OutputForm, group: GroupReply) -> None:
        """Takes a request without its id. The group must have outputs, not an error."""
        self._request = request
        self._form = form
        self._group = group
        # Whether the responses can be laid together out of pieces.
        self._plain = not request.classes and all(map(self._fits, group.reply.outputs))
        if not self._plain:
            return
        names = {"model_name": request.model, "model_version": version_of(group)}
        self._head = orjson.dumps(names)[:-1]
        # JSON before the first output's data, between them, and after the last.
        self._pieces: list[bytes] = []
        # What stands between the pieces, for each member; an error for one that has no JSON form.
        self._texts: list[list[bytes | ServiceError]] = []
        # The data of binary outputs, for each member.
        self._binary: list[list[bytes]] = []
        before = b',"outputs":['
        for index, tensor in enumerate(group.reply.outputs):
            described = {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
            }
            before += orjson.dumps(described)[:-1]
            if form.outputs.get(tensor.name, form.binary):
                data = group.parts()[index]
                self._binary.append(data)
                self._pieces.append(before + b',"parameters":{"binary_data_size":')
                self._texts.append([b"%d" % len(part) for part in data])
                before = b"}},"
            else:
                self._pieces.append(before + b',"data":[')
                self._texts.append(self._json(index, tensor))
                before = b"]},"
        if self._texts:
            before = before[:-1]
        self._pieces.append(before + b"]}")

    def write(self, index: int, id: str) -> HttpResponse:
        """Returns the response to a member whose request has this id. Raises NotReady for an output
        without a JSON form.
        """
        if not self._plain:
            request = self._request
            own = InferRequest(
                request.model, request.version, id, request.work, classes=request.classes
            )
            return write_response(own, self._form, self._group.of(index))
        parts = [self._head]
        if id:
            parts += (b',"id":', orjson.dumps(id))
        for piece, texts in zip(self._pieces, self._texts, strict=False):
            text = texts[index]
            if isinstance(text, ServiceError):
                raise text.with_traceback(None)
            parts += (piece, text)
        parts.append(self._pieces[-1])
        if not self._binary:
            return HttpResponse(200, b"".join(parts), JSON)
        size = sum(map(len, parts))
        parts += [data[index] for data in self._binary]
        headers: Headers = [(JSON_SIZE, b"%d" % size)]
        return HttpResponse(200, b"".join(parts), OCTETS, headers)

    def _fits(self, tensor: tensor_pb2.Tensor) -> bool:
        """Returns whether the tensor has the data of all members."""
        size = ITEM_SIZES.get(tensor.datatype)
        if size is None:
            return True
        elements = element_count(tensor.shape, tensor.name)
        return len(tensor.data) == self._group.count * elements * size

    def _json(self, index: int, tensor: tensor_pb2.Tensor) -> list[Any]:
        """Returns the elements of each member as JSON, without brackets."""
        count = self._group.count
        if tensor.datatype == "BYTES":
            return [self._texts_of(tensor, data) for data in self._group.parts()[index]]
        array: Any = decode(tensor.name, tensor.datatype, [], tensor.data)
        text = orjson.dumps(array.reshape(count, -1 if len(array) else 0), option=_NUMPY)
        return text[2:-2].split(b"],[")

    def _texts_of(self, tensor: tensor_pb2.Tensor, data: bytes) -> bytes | ServiceError:
        try:
            texts = decode(tensor.name, tensor.datatype, list(tensor.shape), data)
        except ServiceError as error:
            return error
        return orjson.dumps(texts)[1:-1]
