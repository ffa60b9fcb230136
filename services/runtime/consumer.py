"""From a delivery to its replies. Items of an envelope share a message but never a fate; the message is acknowledged
when every item's reply is with the broker, so a runtime that dies in between leaves its work to another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from services.chassis.broker.port import Broker, Consumer, Delivery
from services.runtime.batching import Request, works_by_rows
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
_FORWARDED = (metadata.REQUEST_ID, metadata.TRACEPARENT)


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
        log: Any,
    ) -> None:
        self._name = name
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
        declared = signatures(version)

        async def handle(delivery: Delivery) -> None:
            await self._handle(delivery, version, declared)

        prefetch = self._executor.slots * _PREFETCH_PER_SLOT
        return await self._broker.consume(inference_queue(key), handle, prefetch=prefetch)

    async def idle(self) -> None:
        """Waits until nothing is in hand."""
        await self._idle.wait()

    async def _handle(
        self, delivery: Delivery, version: repository_pb2.ModelVersion, declared: Mapping[str, Signature]
    ) -> None:
        received = time.monotonic()
        envelope = work_pb2.WorkEnvelope()
        try:
            envelope.ParseFromString(delivery.message.body)
        except DecodeError:
            self._log.error("envelope_unreadable", model_version=version.name, bytes=len(delivery.message.body))
            delivery.nack(requeue=False)
            return
        queue = delivery.message.reply_to
        self._in_hand += len(envelope.items)
        self._idle.clear()
        try:
            await asyncio.gather(*(self._answer(item, queue, version, declared, received) for item in envelope.items))
            delivery.ack()
        finally:
            self._in_hand -= len(envelope.items)
            if not self._in_hand:
                self._idle.set()

    async def _answer(
        self,
        item: work_pb2.WorkItem,
        queue: str,
        version: repository_pb2.ModelVersion,
        declared: Mapping[str, Signature],
        received: float,
    ) -> None:
        result = await self._result(item, version, declared, received)
        self._note(item, version.name, result)
        error = result.answer.error
        reply = work_pb2.WorkReply(
            id=item.id,
            outputs=result.answer.outputs,
            error=to_work_error(error) if error is not None else None,
            runtime=self._name,
            queue_ns=result.queue_ns,
            compute_ns=result.compute_ns,
        )
        if queue:
            await self._replies.send(queue, reply)

    async def _result(
        self,
        item: work_pb2.WorkItem,
        version: repository_pb2.ModelVersion,
        declared: Mapping[str, Signature],
        received: float,
    ) -> Result:
        """What became of the item; never raises, so that no item fails its neighbours."""
        try:
            signature = declared.get(item.method, Signature())
            request = parse(item, signature, received)
            rowwise = version.format_options.get("batching") != "off" and works_by_rows(
                version.format, item.method, signature
            )
            resident = self._cache.try_lease(version.name)
            if resident is None:
                return await self._load_and_run(request, version, rowwise)
            try:
                return await self._run(request, resident, rowwise)
            finally:
                self._cache.release(version.name)
        except TimeoutError:
            error: ServiceError = DeadlinePassed("the deadline passed while the model was being loaded")
            return _failed(error, None, received)
        except ServiceError as exc:
            return _failed(exc, None, received)
        except Exception as exc:
            return _failed(Internal("internal error in the runtime"), exc, received)

    async def _load_and_run(self, request: Request, version: repository_pb2.ModelVersion, rowwise: bool) -> Result:
        # Fetching and loading may outlast the caller; the load goes on without it, for the next one.
        remaining = None if request.deadline == float("inf") else request.deadline - time.monotonic()
        async with asyncio.timeout(remaining) as waiting, self._cache.lease(version) as resident:
            waiting.reschedule(None)
            return await self._run(request, resident, rowwise)

    async def _run(self, request: Request, resident: Resident, rowwise: bool) -> Result:
        resident.calls += 1
        return await self._executor.submit(resident.version.name, resident.model, request, rowwise=rowwise)

    def _note(self, item: work_pb2.WorkItem, version: str, result: Result) -> None:
        error, cause = result.answer.error, result.answer.cause
        outcome = "ok" if error is None else error.reason
        self._metrics.answered(version, outcome, result.queue_ns, result.compute_ns)
        fields: dict[str, Any] = {key.replace("-", "_"): item.context[key] for key in _FORWARDED if key in item.context}
        fields.update(model_version=version, method=item.method, outcome=outcome)
        fields.update(queue_ms=result.queue_ns / 1e6, compute_ms=result.compute_ns / 1e6)
        if error is None:
            self._log.debug("model_called", **fields)
        elif cause is not None:
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


def _failed(error: ServiceError, cause: BaseException | None, received: float) -> Result:
    return Result(Answer(error=error, cause=cause), int((time.monotonic() - received) * 1e9), 0)
