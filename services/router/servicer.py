"""Serves RouterService: predictions in the platform's own words, and the router's view of its
fleet.
"""

from __future__ import annotations

from typing import Any

from services.chassis.broker.port import Broker
from services.router.calls import rows
from services.router.calls.invocations import Invocations
from services.router.dispatch.dispatcher import Dispatcher
from services.router.fleet.reconciler import Reconciler
from services.router.queueing.pending_requests import PendingRequests
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import router_service_pb2 as messages
from stellwerk.wire import topology
from stellwerk.wire.errors import InvalidInput, RuntimeNotFound
from stellwerk.wire.names import parse_model, parse_single
from stellwerk.wire.open_inference import DEFAULT_METHOD


class RouterServicer:
    """Translates each message for the use case behind it, and its result back."""

    def __init__(
        self,
        invocations: Invocations,
        reconciler: Reconciler,
        dispatcher: Dispatcher,
        pending: PendingRequests,
        broker: Broker,
    ) -> None:
        self._invocations = invocations
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._pending = pending
        self._broker = broker

    async def Predict(self, request: messages.PredictRequest, _: Any) -> messages.PredictResponse:
        """Calls a model once, with tensors or with plain rows, and answers in the same form."""
        target = await self._invocations.resolve(parse_model(request.name))
        plain = request.HasField("instances")
        if plain and request.inputs:
            raise InvalidInput("give either inputs or instances, not both")
        method = request.method or DEFAULT_METHOD
        work = work_pb2.WorkItem(method=method, outputs=request.output_names)
        if plain:
            work.inputs.append(rows.to_tensor(request.instances, target.signature(method)))
        else:
            work.inputs.extend(request.inputs)
        reply = await self._invocations.call(target, work, request.requires)
        response = messages.PredictResponse(model_version=target.name, runtime=reply.runtime)
        if plain and reply.outputs:
            response.predictions.CopyFrom(rows.from_tensor(reply.outputs[0]))
        else:
            response.outputs.extend(reply.outputs)
        return response

    async def ListRuntimes(
        self, request: messages.ListRuntimesRequest, _: Any
    ) -> messages.ListRuntimesResponse:
        """Lists the attached runtimes by name."""
        return messages.ListRuntimesResponse(runtimes=self._reconciler.registry.runtimes())

    async def GetRuntime(
        self, request: messages.GetRuntimeRequest, _: Any
    ) -> messages.GetRuntimeResponse:
        """Returns one attached runtime. Raises RuntimeNotFound."""
        parse_single(request.name, "runtimes", "runtime")
        for runtime in self._reconciler.registry.runtimes():
            if runtime.name == request.name:
                return messages.GetRuntimeResponse(runtime=runtime)
        raise RuntimeNotFound(f"no runtime {request.name} is attached", name=request.name)

    async def ListQueues(
        self, request: messages.ListQueuesRequest, _: Any
    ) -> messages.ListQueuesResponse:
        """Lists the queues that work was sent to, each with what the broker holds of it."""
        response = messages.ListQueuesResponse(broker=self._broker.description)
        for key in self._dispatcher.used_keys():
            name = topology.inference_queue(key).name
            depth = await self._broker.inspect(name)
            replica = self._reconciler.find(key)
            response.queues.add(
                name=name,
                model_version=replica.model_version if replica else "",
                messages=depth.messages,
                consumers=depth.consumers,
                pending=self._pending.count(key),
            )
        return response
