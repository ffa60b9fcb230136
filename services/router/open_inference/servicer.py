"""The Open Inference Protocol on top of predictions: its core; what extends it is in
`inference_extension`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from services.chassis.release import platform_version
from services.router.calls.invocations import Predictions
from services.router.fleet.reconciler import Serving
from services.router.open_inference.management import EXTENSIONS, InferenceExtension, Tools
from services.router.open_inference.model_config import described_signature, properties
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import open_inference
from stellwerk.wire.errors import InvalidInput, NotFound, NotImplementedHere
from stellwerk.wire.names import parse_inference_name


class InferenceServicer(InferenceExtension):
    """inference.GRPCInferenceService."""

    def __init__(
        self, predictions: Predictions, serving: Serving, ready: Any, messages: Any, tools: Tools
    ) -> None:
        """`ready() -> bool` says whether the router is; `messages` is the module of the protocol's
        messages.
        """
        super().__init__(predictions, serving, tools)
        self._ready, self._messages = ready, messages

    async def ServerLive(self, request: Any, _: Any) -> Any:
        return self._messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, _: Any) -> Any:
        return self._messages.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(self, request: Any, _: Any) -> Any:
        return self._messages.ServerMetadataResponse(
            name="stellwerk", version=platform_version(), extensions=EXTENSIONS
        )

    async def ModelReady(self, request: Any, _: Any) -> Any:
        return self._messages.ModelReadyResponse(
            ready=await self._model_ready(request.name, request.version)
        )

    async def _model_ready(self, name: str, version: str) -> bool:
        try:
            found = await self._predictions.resolve(parse_inference_name(name, version))
        except (NotFound, InvalidInput):
            return False
        return self._serving.servable(found)

    async def ModelMetadata(self, request: Any, _: Any) -> Any:
        name = parse_inference_name(request.name, request.version)
        version = await self._predictions.resolve(name)
        versions = (
            [str(version.version)]
            if request.version
            else await self._predictions.directory.versions(name)
        )
        signature = described_signature(version)
        return self._messages.ModelMetadataResponse(
            name=request.name,
            versions=versions,
            platform=version.format,
            inputs=[self._described(spec) for spec in signature.inputs],
            outputs=[self._described(spec) for spec in signature.outputs],
            properties=properties(version),
        )

    def _described(self, spec: tensor_pb2.TensorSpec) -> Any:
        return self._messages.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )

    async def ModelInfer(self, request: Any, _: Any) -> Any:
        version = await self._predictions.resolve(
            parse_inference_name(request.model_name, request.model_version)
        )
        ask = open_inference.read(request)
        answer = await self._predictions.predict(
            version, ask.work.method, ask.work.inputs, ask.work.outputs
        )
        return open_inference.write(ask, version.name, answer.outputs)

    async def ModelStreamInfer(self, requests: Any, _: Any) -> AsyncGenerator[Any]:
        raise NotImplementedHere(
            "calls over a stream are taken by the gateway, which sends them on together"
        )
        yield  # makes this an answer in several parts, as the protocol has it
