"""From a delivery to its replies. Items of an envelope share a message but never a fate; the message is acknowledged
when every item's reply is with the broker, so a runtime that dies in between leaves its work to another one.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.protobuf.message import DecodeError

from services.chassis.broker.port import Broker, Consumer, Delivery
from services.chassis.telemetry import Tracing
from services.runtime.batching import OPTION, Request, works_by_rows
from services.runtime.cache import ModelCache, Resident
from services.runtime.calls import Answer
from services.runtime.executor import Executor, Result
from services.runtime.formats.port import Signature, signatures
from services.runtime.metrics import RuntimeMetrics
from services.runtime.replies import ReplySender
from services.wire import metadata, tensors
from services.wire.errors import DeadlinePassed, Internal, InvalidInput, ServiceError, to_work_error
from services.wire.topology import inference_queue
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2

# Deliveries in hand for each slot: one that runs, and more that are here when it ends, since they make the next call
# together. Beyond that they are better left to other runtimes.
_PREFETCH_PER_SLOT = 4
_UNDECLARED = Signature()


class _Served:
    """A version whose queue is consumed, with what its declaration says of each method."""

    def __init__(self, version: repository_pb2.ModelVersion) -> None:
        self.version = version
        self.name = version.name
        self._signatures = signatures(version)
        self._mode = version.format_options.get(OPTION, "")

    def signature(self, method: str) -> Signature:
        return self._signatures.get(method, _UNDECLARED)

    def works_by_rows(self, method: str) -> bool:
        return works_by_rows(self.version.format, method, self.signature(method), self._mode)


class _InHand:
    """A message whose items are being answered."""

    def __init__(self, queue: str, received: float, items: int) -> None:
        self.queue, self.received = queue, received
        self._open = items
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not items:
            self._done.set_result(None)

    def one_done(self, _: object = None) -> None:
        """One more reply is with the broker, or nobody waits for it any more."""
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)

    async def done(self) -> None:
        """Waits for the last reply."""
        await self._done


class WorkConsumer:
    """Consumes the queues of served versions."""

    def __init__(
        self,
        *,
        name: str,
        broker: Broker,
        cache: ModelCache,
        executor: Executor,
        replies: ReplySender,
        metrics: RuntimeMetrics,
        tracing: Tracing,
        log: Any,
    ) -> None:
        self._name = name
        self._tracing = tracing
        self._broker = broker
        self._cache = cache
        self._executor = executor
        self._replies = replies
        self._metrics = metrics
        self._log = log
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Items in hand."""
        return self._in_hand

    async def open(self, key: str, version: repository_pb2.ModelVersion) -> Consumer:
        """Consumes the key's queue until the consumer is cancelled. Raises BrokerDown."""
        served = _Served(version)

        async def handle(delivery: Delivery) -> None:
            await self._handle(delivery, served)

        prefetch = self._executor.slots * _PREFETCH_PER_SLOT
        return await self._broker.consume(inference_queue(key), handle, prefetch=prefetch)

    async def idle(self) -> None:
        """Waits until nothing is in hand."""
        await self._idle.wait()

    async def _handle(self, delivery: Delivery, served: _Served) -> None:
        envelope = work_pb2.WorkEnvelope()
        try:
            envelope.ParseFromString(delivery.message.body)
        except DecodeError:
            self._log.error("envelope_unreadable", model_version=served.name, bytes=len(delivery.message.body))
            delivery.nack(requeue=False)
            return
        items = envelope.items
        work = _InHand(delivery.message.reply_to, time.monotonic(), len(items))
        self._in_hand += len(items)
        self._idle.clear()
        try:
            resident = self._cache.try_lease(served.name)
            if resident is None:
                await asyncio.gather(*(self._load_and_answer(item, served, work) for item in items))
                await work.done()
            else:
                # No task per item on this path: it is the hot one.
                try:
                    for item in items:
                        self._answer(item, served, resident, work)
                    await work.done()
                finally:
                    self._cache.release(served.name)
            delivery.ack()
        finally:
            self._in_hand -= len(items)
            if not self._in_hand:
                self._idle.set()

    def _answer(self, item: work_pb2.WorkItem, served: _Served, resident: Resident, work: _InHand) -> None:
        """Submits the item; its reply follows when it has its result. Never raises, so no item fails its neighbours."""
        try:
            request = parse(item, served.signature(item.method), work.received)
            future = self._submit(request, served, resident)
        except Exception as exc:
            self._reply(item, served, work, _failed(exc, work.received))
            return

        def finished(done: asyncio.Future[Result]) -> None:
            if not done.cancelled():
                self._reply(item, served, work, done.result())

        future.add_done_callback(finished)

    async def _load_and_answer(self, item: work_pb2.WorkItem, served: _Served, work: _InHand) -> None:
        try:
            request = parse(item, served.signature(item.method), work.received)
            # Fetching and loading may outlast the caller; the load goes on without it, for the next one.
            remaining = None if request.deadline == float("inf") else request.deadline - time.monotonic()
            async with asyncio.timeout(remaining) as waiting, self._cache.lease(served.version) as resident:
                waiting.reschedule(None)
                result = await self._submit(request, served, resident)
        except TimeoutError:
            late = DeadlinePassed("the deadline passed while the model was being loaded")
            result = _failed(late, work.received)
        except Exception as exc:
            result = _failed(exc, work.received)
        self._reply(item, served, work, result)

    def _submit(self, request: Request, served: _Served, resident: Resident) -> asyncio.Future[Result]:
        resident.calls += 1
        rowwise = served.works_by_rows(request.method)
        return self._executor.submit(served.name, resident.model, request, rowwise=rowwise)

    def _reply(self, item: work_pb2.WorkItem, served: _Served, work: _InHand, result: Result) -> None:
        self._note(item, served.name, result)
        error = result.answer.error
        reply = work_pb2.WorkReply(
            id=item.id,
            outputs=result.answer.outputs,
            error=to_work_error(error) if error is not None else None,
            runtime=self._name,
            queue_ns=result.queue_ns,
            compute_ns=result.compute_ns,
        )
        if work.queue:
            self._replies.send(work.queue, reply).add_done_callback(work.one_done)
        else:
            work.one_done()

    def _note(self, item: work_pb2.WorkItem, version: str, result: Result) -> None:
        error, cause = result.answer.error, result.answer.cause
        outcome = "ok" if error is None else error.reason
        self._metrics.answered(version, outcome, result.queue_ns, result.compute_ns)
        trace = item.context.get(metadata.TRACEPARENT, "")
        self._tracing.record(f"{item.method} {version}", trace, result.queue_ns + result.compute_ns, outcome)
        fields: dict[str, Any] = {
            "request_id": item.context.get(metadata.REQUEST_ID),
            "trace_id": trace.split("-")[1] if trace else None,
            "principal": item.context.get(metadata.PRINCIPAL),
        }
        fields.update(model_version=version, method=item.method, outcome=outcome)
        fields.update(queue_ms=result.queue_ns / 1e6, compute_ms=result.compute_ns / 1e6)
        if cause is not None:
            self._log.warning("model_called", **fields, exc_info=cause)
        else:
            self._log.info("model_called", **fields)


def parse(item: work_pb2.WorkItem, signature: Signature, received: float) -> Request:
    """The item as a request, its tensors checked. Raises InvalidInput.

    The router checked them too; a runtime trusts nobody. `timeout_ms` counts from the sending, and clocks of machines
    differ, so the deadline is reckoned from the arrival; the broker has already dropped what expired in its queue.
    """
    if signature.inputs:
        tensors.check_against(item.inputs, signature.inputs)
    inputs = {tensor.name: tensors.to_numpy(tensor) for tensor in item.inputs}
    if len(inputs) != len(item.inputs):
        raise InvalidInput("an input is given twice")
    return Request(
        id=item.id,
        method=item.method,
        inputs=inputs,
        outputs=tuple(item.outputs),
        received=received,
        deadline=received + item.timeout_ms / 1000 if item.timeout_ms else float("inf"),
        context=item.context,
    )


def _failed(exc: Exception, received: float) -> Result:
    waited = int((time.monotonic() - received) * 1e9)
    if isinstance(exc, ServiceError):
        return Result(Answer(error=exc), waited, 0)
    return Result(Answer(error=Internal("internal error in the runtime"), cause=exc), waited, 0)
