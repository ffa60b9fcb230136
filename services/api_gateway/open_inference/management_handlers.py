"""Serves the Open Inference Protocol's management extensions over REST, by RPC."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from google.protobuf import message_factory
from google.protobuf.message import Message

from services.api_gateway.http.exchange import Handler, HttpExchange
from services.api_gateway.http.response import HttpResponse
from services.api_gateway.open_inference import management_json
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.permissions import INFERENCE_SERVICE

_PREFIX = f"/{INFERENCE_SERVICE}/"
_NOTHING = HttpResponse(200, b"{}")
_SHARED_MEMORY = [
    f"{kind}SharedMemory{verb}"
    for kind in ("System", "Cuda")
    for verb in ("Status", "Register", "Unregister")
]
M = TypeVar("M", bound=Message)


class ManagementHandlers:
    """Handlers for configuration, statistics, the repository, tracing and logging."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def handlers(self) -> dict[str, Handler]:
        """Returns the handlers by full RPC method."""
        handlers: dict[str, Handler] = {
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "TraceSetting": self._trace,
            "LogSettings": self._log,
            **dict.fromkeys(_SHARED_MEMORY, self._shared_memory),
        }
        return {_PREFIX + rpc: handler for rpc, handler in handlers.items()}

    async def _call(self, rpc: str, request: Message, answer: type[M]) -> M:
        return answer.FromString(
            await self._upstreams.unary(_PREFIX + rpc, request.SerializeToString())
        )

    async def _config(self, exchange: HttpExchange) -> HttpResponse:
        await exchange.body()
        request = inference.ModelConfigRequest(**exchange.match.variables)
        response = await self._call("ModelConfig", request, inference.ModelConfigResponse)
        return _json(management_json.plain(response.config))

    async def _statistics(self, exchange: HttpExchange) -> HttpResponse:
        await exchange.body()
        request = inference.ModelStatisticsRequest(**exchange.match.variables)
        response = await self._call("ModelStatistics", request, inference.ModelStatisticsResponse)
        return _json(management_json.plain(response))

    async def _index(self, exchange: HttpExchange) -> HttpResponse:
        request = management_json.read_index(await exchange.body())
        response = await self._call("RepositoryIndex", request, inference.RepositoryIndexResponse)
        return HttpResponse(200, management_json.write_index(response))

    async def _load(self, exchange: HttpExchange) -> HttpResponse:
        request = inference.RepositoryModelLoadRequest(
            model_name=exchange.match.variables["model_name"]
        )
        management_json.read_parameters(await exchange.body(), request.parameters)
        await self._call("RepositoryModelLoad", request, inference.RepositoryModelLoadResponse)
        return _NOTHING

    async def _unload(self, exchange: HttpExchange) -> HttpResponse:
        request = inference.RepositoryModelUnloadRequest(
            model_name=exchange.match.variables["model_name"]
        )
        management_json.read_parameters(await exchange.body(), request.parameters)
        await self._call("RepositoryModelUnload", request, inference.RepositoryModelUnloadResponse)
        return _NOTHING

    async def _trace(self, exchange: HttpExchange) -> HttpResponse:
        model, body = exchange.match.variables.get("model_name", ""), await exchange.body()
        request = inference.TraceSettingRequest(model_name=model)
        if exchange.match.route.body:
            management_json.read_trace_settings(body, request)
        response = await self._call("TraceSetting", request, inference.TraceSettingResponse)
        return HttpResponse(200, management_json.write_trace_settings(response))

    async def _log(self, exchange: HttpExchange) -> HttpResponse:
        request, body = inference.LogSettingsRequest(), await exchange.body()
        if exchange.match.route.body:
            management_json.read_log_settings(body, request)
        response = await self._call("LogSettings", request, inference.LogSettingsResponse)
        return HttpResponse(200, management_json.write_log_settings(response))

    async def _shared_memory(self, exchange: HttpExchange) -> HttpResponse:
        """Passes on the router's refusal, whatever the body says: shared memory is not offered."""
        await exchange.body()
        rpc = exchange.match.route.rpc
        request: Any = message_factory.GetMessageClass(rpc.input_type)
        await self._upstreams.unary(exchange.match.route.rpc_name, request().SerializeToString())
        return _NOTHING


def _json(data: dict[str, Any]) -> HttpResponse:
    return HttpResponse(200, orjson.dumps(data))
