"""The Open Inference Protocol's extensions over REST: their routes' handlers, by RPC."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from google.protobuf import message_factory
from google.protobuf.message import Message

from services.api_gateway.http.exchange import Handler, Visit
from services.api_gateway.http.response import Answer
from services.api_gateway.open_inference import management_json as extension_json
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.permissions import INFERENCE_SERVICE

_PREFIX = f"/{INFERENCE_SERVICE}/"
_NOTHING = Answer(200, b"{}")
_SHARED_MEMORY = [
    f"{kind}SharedMemory{verb}"
    for kind in ("System", "Cuda")
    for verb in ("Status", "Register", "Unregister")
]
M = TypeVar("M", bound=Message)


class InferenceExtension:
    """Serves the parts of /v2 that are not about predictions."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def handlers(self) -> dict[str, Handler]:
        """Handlers by full RPC method."""
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

    async def _config(self, visit: Visit) -> Answer:
        await visit.body()
        request = inference.ModelConfigRequest(**visit.match.variables)
        response = await self._call("ModelConfig", request, inference.ModelConfigResponse)
        return _json(extension_json.plain(response.config))

    async def _statistics(self, visit: Visit) -> Answer:
        await visit.body()
        request = inference.ModelStatisticsRequest(**visit.match.variables)
        response = await self._call("ModelStatistics", request, inference.ModelStatisticsResponse)
        return _json(extension_json.plain(response))

    async def _index(self, visit: Visit) -> Answer:
        request = extension_json.read_index(await visit.body())
        response = await self._call("RepositoryIndex", request, inference.RepositoryIndexResponse)
        return Answer(200, extension_json.write_index(response))

    async def _load(self, visit: Visit) -> Answer:
        request = inference.RepositoryModelLoadRequest(
            model_name=visit.match.variables["model_name"]
        )
        extension_json.read_parameters(await visit.body(), request.parameters)
        await self._call("RepositoryModelLoad", request, inference.RepositoryModelLoadResponse)
        return _NOTHING

    async def _unload(self, visit: Visit) -> Answer:
        request = inference.RepositoryModelUnloadRequest(
            model_name=visit.match.variables["model_name"]
        )
        extension_json.read_parameters(await visit.body(), request.parameters)
        await self._call("RepositoryModelUnload", request, inference.RepositoryModelUnloadResponse)
        return _NOTHING

    async def _trace(self, visit: Visit) -> Answer:
        model, body = visit.match.variables.get("model_name", ""), await visit.body()
        request = inference.TraceSettingRequest(model_name=model)
        if visit.match.route.body:
            extension_json.read_trace_settings(body, request)
        response = await self._call("TraceSetting", request, inference.TraceSettingResponse)
        return Answer(200, extension_json.write_trace_settings(response))

    async def _log(self, visit: Visit) -> Answer:
        request, body = inference.LogSettingsRequest(), await visit.body()
        if visit.match.route.body:
            extension_json.read_log_settings(body, request)
        response = await self._call("LogSettings", request, inference.LogSettingsResponse)
        return Answer(200, extension_json.write_log_settings(response))

    async def _shared_memory(self, visit: Visit) -> Answer:
        """Not offered, whatever the body says; the service behind says so."""
        await visit.body()
        rpc = visit.match.route.rpc
        request: Any = message_factory.GetMessageClass(rpc.input_type)
        await self._upstreams.unary(visit.match.route.rpc_name, request().SerializeToString())
        return _NOTHING


def _json(data: dict[str, Any]) -> Answer:
    return Answer(200, orjson.dumps(data))
