"""One prediction, from a name and tensors to an answer: resolve → validate → place → dispatch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis import context
from services.router.directory import ModelDirectory
from services.router.dispatch import Dispatcher
from services.router.serving import Serving
from services.wire import metadata as keys
from services.wire import tensors
from services.wire.errors import InvalidInput, TooLarge, from_work_error
from services.wire.names import ModelName
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import requirements_pb2, tensor_pb2

DEFAULT_METHOD = "predict"
# What the router keeps of the deadline, so that it can still say what timed out.
_MARGIN_SECONDS = 0.02
_NOTHING = requirements_pb2.Requirements()


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs, and which version and runtime gave them."""

    version: repository.ModelVersion
    outputs: Sequence[tensor_pb2.Tensor]
    runtime: str


def signature_of(version: repository.ModelVersion, method: str) -> tensor_pb2.MethodSignature:
    """The method's signature; an empty one if the owner declared nothing. Raises InvalidInput for an unknown method."""
    if not version.signature:
        return tensor_pb2.MethodSignature(method=method)
    for signature in version.signature:
        if signature.method == method:
            return signature
    known = ", ".join(f"'{signature.method}'" for signature in version.signature) or "none"
    raise InvalidInput(f"the model has no method '{method[:64]}'; it has {known}", method=method[:64])


def _check(
    version: repository.ModelVersion,
    signature: tensor_pb2.MethodSignature,
    inputs: Sequence[tensor_pb2.Tensor],
    outputs: Sequence[str],
) -> None:
    if version.signature:
        tensors.check_against(inputs, signature.inputs)
        check_outputs(outputs, signature)
        return
    for tensor in inputs:
        tensors.check(tensor)


def check_outputs(wanted: Sequence[str], signature: tensor_pb2.MethodSignature) -> None:
    """Raises InvalidInput if an output is asked for that the method does not give, or twice."""
    known = {spec.name for spec in signature.outputs}
    for name in wanted:
        if name not in known:
            listed = ", ".join(f"'{spec.name}'" for spec in signature.outputs)
            raise InvalidInput(f"the model has no output '{name[:64]}'; it gives {listed}", output=name[:64])
    if len(set(wanted)) != len(wanted):
        raise InvalidInput("an output is asked for twice")


class Predictions:
    """The use case behind Predict and ModelInfer."""

    def __init__(
        self, directory: ModelDirectory, serving: Serving, dispatcher: Dispatcher, max_input_bytes: int
    ) -> None:
        self.directory, self.serving, self._dispatcher = directory, serving, dispatcher
        self._max_input_bytes = max_input_bytes

    async def predict(
        self,
        version: repository.ModelVersion,
        method: str,
        inputs: Sequence[tensor_pb2.Tensor],
        outputs: Sequence[str] = (),
        requires: requirements_pb2.Requirements = _NOTHING,
    ) -> Answer:
        """Calls `method` of a resolved version. Raises the error classes of `services.wire.errors`."""
        signature = signature_of(version, method or DEFAULT_METHOD)
        _check(version, signature, inputs, outputs)
        size = sum(len(tensor.data) for tensor in inputs)
        if size > self._max_input_bytes:
            raise TooLarge(
                f"the inputs hold {size} bytes, at most {self._max_input_bytes} are allowed; send fewer rows at a time",
                limit=self._max_input_bytes,
            )
        call = context.current()
        deadline = time.monotonic() + (call.remaining() if call else 30.0) - _MARGIN_SECONDS
        demand = self.serving.demand(version, requires)
        if not self.serving.fleet.ready(demand.key):
            await self.serving.ready(demand, deadline)
        by_name = {tensor.name: tensor for tensor in inputs}
        item = work_pb2.WorkItem(
            method=signature.method,
            inputs=[by_name[spec.name] for spec in signature.inputs] or inputs,
            outputs=outputs,
            context=_context(call),
        )
        reply = await self._dispatcher.call(demand.key, item, deadline)
        if reply.HasField("error"):
            raise from_work_error(reply.error)
        return Answer(version, reply.outputs, reply.runtime)

    async def resolve(self, name: ModelName) -> repository.ModelVersion:
        """The version that a name means."""
        return await self.directory.resolve(name)


def _context(call: context.CallContext | None) -> dict[str, str]:
    if call is None:
        return {}
    values = {
        keys.REQUEST_ID: call.request_id,
        keys.TRACEPARENT: call.traceparent,
        keys.PRINCIPAL: call.principal.name if call.principal else "",
    }
    return {key: value for key, value in values.items() if value}
