"""Serves the core of the Open Inference Protocol; its extensions are in `management`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from services.chassis.release import platform_version
from services.chassis.telemetry import Tracing
from services.router.calls.invocations import Invocations
from services.router.calls.statistics import Statistics
from services.router.fleet.reconciler import Reconciler
from services.router.naming.directory import ModelDirectory
from services.router.open_inference.log_settings import LogSettings
from services.router.open_inference.management import EXTENSIONS, ManagementServicer
from services.router.open_inference.model_config import described_signature, properties
from stellwerk.inference.v2 import grpc_service_pb2 as messages
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import open_inference
from stellwerk.wire.errors import InvalidInput, NotFound, NotImplementedHere
from stellwerk.wire.names import parse_inference_name


class InferenceServicer(ManagementServicer):
    """Serves inference.GRPCInferenceService."""

    def __init__(
        self,
        invocations: Invocations,
        directory: ModelDirectory,
        reconciler: Reconciler,
        statistics: Statistics,
        tracing: Tracing,
        log_settings: LogSettings,
        ready: Callable[[], bool],
    ) -> None:
        """Asks `ready` whether the router is."""
        super().__init__(directory, reconciler, statistics, tracing, log_settings)
        self._invocations = invocations
        self._ready = ready

    async def ServerLive(
        self, request: messages.ServerLiveRequest, _: Any
    ) -> messages.ServerLiveResponse:
        """Returns live: a router that answers is."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: messages.ServerReadyRequest, _: Any
    ) -> messages.ServerReadyResponse:
        """Returns whether the router is ready."""
        return messages.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(
        self, request: messages.ServerMetadataRequest, _: Any
    ) -> messages.ServerMetadataResponse:
        """Returns the name, the version and the extensions of the server."""
        return messages.ServerMetadataResponse(
            name="stellwerk", version=platform_version(), extensions=EXTENSIONS
        )

    async def ModelReady(
        self, request: messages.ModelReadyRequest, _: Any
    ) -> messages.ModelReadyResponse:
        """Returns whether a runtime answers the version, or could be told to."""
        try:
            name = parse_inference_name(request.name, request.version)
            target = await self._directory.resolve(name)
        except (NotFound, InvalidInput):
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=self._reconciler.servable(target.version))

    async def ModelMetadata(
        self, request: messages.ModelMetadataRequest, _: Any
    ) -> messages.ModelMetadataResponse:
        """Describes a model's inputs, outputs and versions."""
        name = parse_inference_name(request.name, request.version)
        version = (await self._directory.resolve(name)).version
        versions = (
            [str(version.version)] if request.version else await self._directory.versions(name)
        )
        signature = described_signature(version)
        return messages.ModelMetadataResponse(
            name=request.name,
            versions=versions,
            platform=version.format,
            inputs=[_tensor_metadata(spec) for spec in signature.inputs],
            outputs=[_tensor_metadata(spec) for spec in signature.outputs],
            properties=properties(version),
        )

    async def ModelInfer(
        self, request: messages.ModelInferRequest, _: Any
    ) -> messages.ModelInferResponse:
        """Calls a model once."""
        name = parse_inference_name(request.model_name, request.model_version)
        target = await self._invocations.resolve(name)
        ask = open_inference.read(request)
        reply = await self._invocations.call(target, ask.work)
        return open_inference.write(ask, target.name, reply.outputs)

    async def ModelStreamInfer(self, requests: Any, _: Any) -> AsyncGenerator[Any]:
        """Refuses streams: the gateway takes them."""
        raise NotImplementedHere(
            "calls over a stream are taken by the gateway, which sends them on together"
        )
        yield  # makes this an answer in several parts, as the protocol has it


def _tensor_metadata(
    spec: tensor_pb2.TensorSpec,
) -> messages.ModelMetadataResponse.TensorMetadata:
    return messages.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )
