"""RouterService: predictions in the platform's own words, and what the router knows of its
fleet.
"""

from __future__ import annotations

from typing import Any

from services.chassis.broker.port import Broker
from services.router.calls import rows as instances
from services.router.calls.invocations import Predictions
from services.router.dispatch.dispatcher import Dispatcher
from services.router.fleet.reconciler import Serving
from services.router.naming.target import signature_of
from services.router.queueing.pending_requests import PendingTable
from stellwerk.router.v1 import router_service_pb2 as messages
from stellwerk.wire import topology
from stellwerk.wire.errors import InvalidInput, RuntimeNotFound
from stellwerk.wire.names import parse_model, parse_single
from stellwerk.wire.open_inference import DEFAULT_METHOD


class RouterServicer:
    """Message in, use case, message out."""

    def __init__(
        self,
        predictions: Predictions,
        serving: Serving,
        dispatcher: Dispatcher,
        pending: PendingTable,
        broker: Broker,
    ) -> None:
        self._predictions, self._serving, self._dispatcher = predictions, serving, dispatcher
        self._pending, self._broker = pending, broker

    async def Predict(self, request: messages.PredictRequest, _: Any) -> messages.PredictResponse:
        version = (await self._predictions.find(parse_model(request.name))).version
        plain = request.HasField("instances")
        if plain and request.inputs:
            raise InvalidInput("give either inputs or instances, not both")
        method = request.method or DEFAULT_METHOD
        inputs = (
            [instances.to_tensor(request.instances, signature_of(version, method))]
            if plain
            else list(request.inputs)
        )
        answer = await self._predictions.predict(
            version, method, inputs, list(request.output_names), request.requires
        )
        response = messages.PredictResponse(model_version=version.name, runtime=answer.runtime)
        if plain and answer.outputs:
            response.predictions.CopyFrom(instances.from_tensor(answer.outputs[0]))
        else:
            response.outputs.extend(answer.outputs)
        return response

    async def ListRuntimes(
        self, request: messages.ListRuntimesRequest, _: Any
    ) -> messages.ListRuntimesResponse:
        return messages.ListRuntimesResponse(runtimes=self._serving.fleet.runtimes())

    async def GetRuntime(
        self, request: messages.GetRuntimeRequest, _: Any
    ) -> messages.GetRuntimeResponse:
        parse_single(request.name, "runtimes", "runtime")
        for runtime in self._serving.fleet.runtimes():
            if runtime.name == request.name:
                return messages.GetRuntimeResponse(runtime=runtime)
        raise RuntimeNotFound(f"no runtime {request.name} is attached", name=request.name)

    async def ListQueues(
        self, request: messages.ListQueuesRequest, _: Any
    ) -> messages.ListQueuesResponse:
        response = messages.ListQueuesResponse(broker=self._broker.description)
        for key in self._dispatcher.used_keys():
            name = topology.inference_queue(key).name
            depth = await self._broker.inspect(name)
            demand = self._serving.demands.get(key)
            response.queues.add(
                name=name,
                model_version=demand.model_version if demand else "",
                messages=depth.messages,
                consumers=depth.consumers,
                pending=self._pending.count(key),
            )
        return response
