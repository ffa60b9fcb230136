"""The Open Inference Protocol over REST: its routes' handlers, by RPC.

Model ready answers 200 when it is and 404 when it is not or does not exist, since clients look at
the status alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from services.api_gateway.http.exchange import Handler, Visit
from services.api_gateway.http.response import Answer
from services.api_gateway.open_inference import metadata_json as inference_json
from services.api_gateway.open_inference.infer_handlers import Caller, Predictions
from services.api_gateway.open_inference.management_handlers import InferenceExtension
from services.api_gateway.open_inference.metadata_cache import Signatures
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.permissions import INFERENCE_SERVICE

_PREFIX = f"/{INFERENCE_SERVICE}/"
_LIVE = Answer(200, b'{"live":true}')


class Inference:
    """Serves /v2."""

    def __init__(
        self, upstreams: Upstreams, problem: Callable[[], Awaitable[str]], calls: Caller
    ) -> None:
        """`problem` says why predictions cannot be served now, "" if they can."""
        self._upstreams, self._problem = upstreams, problem
        self._predictions = Predictions(calls, Signatures(upstreams.unary))

    def handlers(self) -> dict[str, Handler]:
        """Handlers by full RPC method."""
        return {
            _PREFIX + "ServerLive": self._live,
            _PREFIX + "ServerReady": self._ready,
            _PREFIX + "ServerMetadata": self._server_metadata,
            _PREFIX + "ModelReady": self._model_ready,
            _PREFIX + "ModelMetadata": self._model_metadata,
            _PREFIX + "ModelInfer": self._predictions.unary,
            _PREFIX + "ModelStreamInfer": self._predictions.stream,
            **InferenceExtension(self._upstreams).handlers(),
        }

    async def _live(self, _: Visit) -> Answer:
        return _LIVE

    async def _ready(self, _: Visit) -> Answer:
        problem = await self._problem()
        if problem:
            return Answer(
                503,
                orjson.dumps({"ready": False, "error": problem}),
                headers=[(b"retry-after", b"1")],
            )
        return Answer(200, b'{"ready":true}')

    async def _server_metadata(self, visit: Visit) -> Answer:
        visit.request.watch()
        data = await self._upstreams.unary(
            _PREFIX + "ServerMetadata", inference.ServerMetadataRequest().SerializeToString()
        )
        return Answer(
            200,
            inference_json.write_server_metadata(inference.ServerMetadataResponse.FromString(data)),
        )

    async def _model_ready(self, visit: Visit) -> Answer:
        request = inference.ModelReadyRequest(**visit.match.variables)
        data = await self._upstreams.unary(_PREFIX + "ModelReady", request.SerializeToString())
        ready = inference.ModelReadyResponse.FromString(data).ready
        answer: dict[str, object] = {"name": request.name, "ready": ready}
        if not ready:
            answer["error"] = "there is no such model ready to take requests"
        return Answer(200 if ready else 404, orjson.dumps(answer))

    async def _model_metadata(self, visit: Visit) -> Answer:
        request = inference.ModelMetadataRequest(**visit.match.variables)
        data = await self._upstreams.unary(_PREFIX + "ModelMetadata", request.SerializeToString())
        return Answer(
            200,
            inference_json.write_model_metadata(inference.ModelMetadataResponse.FromString(data)),
        )
