"""One prediction, from a name and tensors to an answer: resolve → validate → place → dispatch.

What a client's requests have in common is looked up, not worked out: a call of a model that is
known and served goes to its queue without waiting for anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from services.chassis import context
from services.chassis.futures import settle
from services.router.calls.statistics import Statistics
from services.router.dispatch.dispatcher import Answered, Dispatcher
from services.router.fleet.placement import Demand
from services.router.fleet.reconciler import Serving
from services.router.naming.directory import ModelDirectory
from services.router.naming.target import Callee
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import requirements_pb2, tensor_pb2
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import NotImplementedHere, ServiceError, TooLarge, from_work_error
from stellwerk.wire.names import ModelName
from stellwerk.wire.open_inference import DEFAULT_METHOD

_NOTHING = requirements_pb2.Requirements()
_MAX_CALLEES = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs, and which version and runtime gave them."""

    version: repository.ModelVersion
    outputs: Sequence[tensor_pb2.Tensor]
    runtime: str


class Predictions:
    """The use case behind every call of a model."""

    def __init__(
        self,
        directory: ModelDirectory,
        serving: Serving,
        dispatcher: Dispatcher,
        max_input_bytes: int,
    ) -> None:
        self.directory, self.serving, self._dispatcher = directory, serving, dispatcher
        self._max_input_bytes = max_input_bytes
        self._callees: dict[str, Callee] = {}
        # Of all calls, whichever door they come through.
        self.statistics = Statistics()

    def known(self, name: ModelName) -> Callee | None:
        """What the name means, if that is known without asking."""
        version = self.directory.known(name)
        if version is None:
            return None
        callee = self.callee(version)
        if self.directory.turnover and self._answers(callee):
            self.directory.turnover.settled(name)
        return callee

    async def find(self, name: ModelName) -> Callee:
        """What the name means; what it meant before, while that is served and what it means now is
        not yet.

        Raises ModelNotFound and its siblings.
        """
        callee = self.callee(await self.directory.resolve(name))
        change = self.directory.turnover.of(name)
        if change is None:
            return callee
        earlier = [self.callee(version) for version in change.former if version.name != callee.name]
        former = next(filter(self._answers, earlier), None)
        if former is None or self._answers(callee):
            return callee
        patience = change.patience(time.monotonic(), context.work_deadline())
        try:
            await self.serving.ready(self.demand(callee), patience)
        except ServiceError:
            return callee if self._answers(callee) or not self._answers(former) else former
        return callee

    def _answers(self, callee: Callee) -> bool:
        """Whether the version was called before and can be called again at once."""
        demand = callee.demand
        return (
            demand is not None
            and self.serving.keeps(demand)
            and self.serving.fleet.ready(demand.key)
        )

    def callee(self, version: repository.ModelVersion) -> Callee:
        """A version, ready to be called."""
        callee = self._callees.get(version.name)
        if callee is None or callee.version is not version:
            if len(self._callees) >= _MAX_CALLEES:
                self._callees.clear()
            callee = self._callees[version.name] = Callee(version)
        return callee

    def demand(self, callee: Callee, requires: requirements_pb2.Requirements = _NOTHING) -> Demand:
        """That the version be served under its own and these requirements."""
        if requires is not _NOTHING:
            return self.serving.demand(callee.version, requires)
        demand = callee.demand
        if demand is None or not self.serving.keeps(demand):
            demand = callee.demand = self.serving.demand(callee.version, _NOTHING)
        demand.last_used = time.monotonic()
        return demand

    def send(
        self,
        callee: Callee,
        demand: Demand,
        work: work_pb2.WorkItem,
        deadline: float,
        answered: Answered,
    ) -> str:
        """Checks the work and sends it to a queue that is served; `answered` hears of every answer
        and of the end.

        Returns the id to cancel it by. Raises InvalidInput, TooLarge, Overloaded, and what
        `Dispatcher.submit` raises.
        """
        method = callee.method(work.method)
        if method.decoupled and not work.stream:
            raise NotImplementedHere(
                "this model gives several answers to a request; call it over a stream"
            )
        self._check_size(work)
        method.check(work)
        tenant = work.context.get(keys.PRINCIPAL, "")
        if callee.policy.default_timeout:  # a request may ask for less, not for more
            deadline = min(deadline, time.monotonic() + callee.policy.default_timeout)
        return self._dispatcher.submit(
            demand.key,
            work,
            deadline=deadline,
            tenant=tenant,
            policy=callee.policy,
            answered=answered,
        )

    def cancel(self, id: str) -> None:
        """The caller does not wait for it any more."""
        self._dispatcher.cancel(id)

    def _check_size(self, work: work_pb2.WorkItem) -> None:
        size = sum(len(tensor.data) for tensor in work.inputs)
        if size > self._max_input_bytes:
            raise TooLarge(
                f"the inputs hold {size} bytes, at most {self._max_input_bytes} are allowed; send"
                " fewer rows at a time",
                limit=self._max_input_bytes,
            )

    async def predict(
        self,
        version: repository.ModelVersion,
        method: str,
        inputs: Sequence[tensor_pb2.Tensor],
        outputs: Sequence[str] = (),
        requires: requirements_pb2.Requirements = _NOTHING,
    ) -> Answer:
        """Calls `method` of a resolved version. Raises the error classes of
        `stellwerk.wire.errors`.
        """
        call = context.current()
        deadline = context.work_deadline()
        work = work_pb2.WorkItem(
            method=method or DEFAULT_METHOD, inputs=inputs, outputs=outputs, context=_context(call)
        )
        callee = self.callee(version)
        callee.method(work.method)
        demand = self.demand(callee, requires)
        began, reply = time.perf_counter_ns(), None
        try:
            if not self.serving.fleet.ready(demand.key):
                await self.serving.ready(demand, deadline)
            reply = await self._call(
                lambda answered: self.send(callee, demand, work, deadline, answered)
            )
        finally:
            self._count(callee, reply, time.perf_counter_ns() - began)
        if reply.HasField("error"):
            raise from_work_error(reply.error)
        return Answer(version, reply.outputs, reply.runtime)

    def _count(self, callee: Callee, reply: work_pb2.WorkReply | None, total_ns: int) -> None:
        ok = reply is not None and not reply.HasField("error")
        self.statistics.record(
            callee.name, reply, ok=ok, now_ms=int(time.time() * 1000), total_ns=total_ns
        )

    async def _call(self, send: Callable[[Answered], str]) -> work_pb2.WorkReply:
        future: asyncio.Future[work_pb2.WorkReply] = asyncio.get_running_loop().create_future()

        id = send(partial(settle, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(id)
            raise

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
