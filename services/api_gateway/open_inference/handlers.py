"""Serves inference, health and metadata of the Open Inference Protocol over REST, by RPC.

Model ready answers 200 when the model is ready and 404 when it is not or does not exist, since
clients look at the status alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol

import orjson

from services.api_gateway.http.exchange import Handler, HttpExchange
from services.api_gateway.http.response import HttpResponse
from services.api_gateway.open_inference import infer_request, raw_request
from services.api_gateway.open_inference.infer_request import AS_BINARY, OutputForm
from services.api_gateway.open_inference.infer_response import write_response
from services.api_gateway.open_inference.metadata_cache import MetadataCache
from services.api_gateway.open_inference.skeletons import Skeletons
from services.api_gateway.upstream.channels import Upstreams
from services.api_gateway.upstream.replies import ModelReply
from services.chassis.context import CallContext
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.permissions import INFERENCE_SERVICE

_PREFIX = f"/{INFERENCE_SERVICE}/"
_LIVE = HttpResponse(200, b'{"live":true}')


class ModelCaller(Protocol):
    """Calls models; see `upstream.model_calls.ModelCalls`."""

    async def call(self, request: InferRequest, call: CallContext) -> ModelReply:
        """Returns the only reply to a request."""

    def stream(self, request: InferRequest, call: CallContext) -> AsyncGenerator[ModelReply]:
        """Yields all replies to a request."""


class OpenInferenceHandlers:
    """Handlers of the routes under /v2 but management and streams."""

    def __init__(
        self,
        upstreams: Upstreams,
        problem: Callable[[], Awaitable[str]],
        calls: ModelCaller,
        metadata: MetadataCache,
        skeletons: Skeletons,
    ) -> None:
        """Asks `problem` for server readiness: it returns why no model can be called, or "".

        `skeletons` learns from the bodies that are read in full here.
        """
        self._upstreams = upstreams
        self._problem = problem
        self._calls = calls
        self._metadata = metadata
        self._skeletons = skeletons

    def handlers(self) -> dict[str, Handler]:
        """Returns the handlers by full RPC method."""
        return {
            _PREFIX + "ServerLive": self._live,
            _PREFIX + "ServerReady": self._ready,
            _PREFIX + "ServerMetadata": self._server_metadata,
            _PREFIX + "ModelReady": self._model_ready,
            _PREFIX + "ModelMetadata": self._model_metadata,
            _PREFIX + "ModelInfer": self._infer,
        }

    async def _infer(self, exchange: HttpExchange) -> HttpResponse:
        request, form = await read_request(exchange, self._metadata, self._skeletons)
        reply = await self._calls.call(request, exchange.call)
        return write_response(request, form, reply)

    async def _live(self, _: HttpExchange) -> HttpResponse:
        return _LIVE

    async def _ready(self, _: HttpExchange) -> HttpResponse:
        problem = await self._problem()
        if problem:
            body = orjson.dumps({"ready": False, "error": problem})
            return HttpResponse(503, body, headers=[(b"retry-after", b"1")])
        return HttpResponse(200, b'{"ready":true}')

    async def _server_metadata(self, exchange: HttpExchange) -> HttpResponse:
        exchange.request.watch()
        data = await self._upstreams.unary(
            _PREFIX + "ServerMetadata", inference.ServerMetadataRequest().SerializeToString()
        )
        return HttpResponse(200, server_metadata(inference.ServerMetadataResponse.FromString(data)))

    async def _model_ready(self, exchange: HttpExchange) -> HttpResponse:
        request = inference.ModelReadyRequest(**exchange.match.variables)
        data = await self._upstreams.unary(_PREFIX + "ModelReady", request.SerializeToString())
        ready = inference.ModelReadyResponse.FromString(data).ready
        answer: dict[str, object] = {"name": request.name, "ready": ready}
        if not ready:
            answer["error"] = "there is no such model ready to take requests"
        return HttpResponse(200 if ready else 404, orjson.dumps(answer))

    async def _model_metadata(self, exchange: HttpExchange) -> HttpResponse:
        request = inference.ModelMetadataRequest(**exchange.match.variables)
        data = await self._upstreams.unary(_PREFIX + "ModelMetadata", request.SerializeToString())
        return HttpResponse(200, model_metadata(inference.ModelMetadataResponse.FromString(data)))


async def read_request(
    exchange: HttpExchange, metadata: MetadataCache, skeletons: Skeletons | None = None
) -> tuple[InferRequest, OutputForm]:
    """Reads the inference request in an exchange's body, and the form for its outputs.

    `skeletons` learns the body's skeleton, if they are given.
    """
    model, version = model_of(exchange)
    body = await exchange.body()
    header = exchange.request.head.headers.get(infer_request.JSON_SIZE)
    json_size = None if header is None else infer_request.json_size_of(header, body)
    if json_size == 0:
        # Without JSON, only the model's metadata say what the bytes are.
        described = await metadata.get(model, version, exchange.call)
        return raw_request.read(body, model, version, described), AS_BINARY
    read = infer_request.read_request(body, model, version, json_size)
    if skeletons is not None:
        skeletons.learn(body, *read, json_size)
    return read


def model_of(exchange: HttpExchange) -> tuple[str, str]:
    """Returns the model and the version, "" for none, that the path names."""
    variables = exchange.match.variables
    return variables["model_name"], variables.get("model_version", "")


def model_metadata(metadata: inference.ModelMetadataResponse) -> bytes:
    """Returns a model's metadata as the protocol's JSON: snake_case names, numbers as numbers."""
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


def server_metadata(metadata: inference.ServerMetadataResponse) -> bytes:
    """Returns the server's metadata as the protocol's JSON."""
    return orjson.dumps(
        {
            "name": metadata.name,
            "version": metadata.version,
            "extensions": list(metadata.extensions),
        }
    )


def _described(tensor: inference.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
