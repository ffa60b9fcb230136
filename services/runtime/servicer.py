"""Serves the runtime's own RPCs: its description and its models in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.runtime.models.cache import ModelCache
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.runtime.v1 import runtime_service_pb2 as runtime_pb2
from stellwerk.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc


class RuntimeServicer(runtime_grpc.RuntimeServiceServicer):
    """The servicer of stellwerk.runtime.v1.RuntimeService."""

    def __init__(
        self, describe: Callable[[], Awaitable[router_pb2.Runtime]], cache: ModelCache
    ) -> None:
        self._describe = describe
        self._cache = cache

    async def DescribeRuntime(
        self, request: runtime_pb2.DescribeRuntimeRequest, context: Any
    ) -> runtime_pb2.DescribeRuntimeResponse:
        """Returns what the runtime has and what it serves."""
        return runtime_pb2.DescribeRuntimeResponse(runtime=await self._describe())

    async def ListCachedModels(
        self, request: runtime_pb2.ListCachedModelsRequest, context: Any
    ) -> runtime_pb2.ListCachedModelsResponse:
        """Returns the models in memory, least recently used first; sizes are in bytes."""
        models = [
            runtime_pb2.CachedModel(
                model_version=resident.version.name,
                sha256=resident.version.sha256,
                memory_bytes=resident.memory_bytes,
                in_use=in_use,
                calls=resident.calls,
                device=resident.model.device,
            )
            for resident, in_use in self._cache.residents()
        ]
        return runtime_pb2.ListCachedModelsResponse(
            models=models, used_bytes=self._cache.used, capacity_bytes=self._cache.capacity
        )
