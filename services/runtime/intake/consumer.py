"""From a delivery to its replies. Items of an envelope share a message but never a fate; the
message is acknowledged when every item's reply is with the broker, so a runtime that dies in
between leaves its work to another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from services.chassis.broker.port import Broker, Consumer, Delivery
from services.chassis.telemetry import Tracing
from services.runtime.batching.scheduler import Executor, Lane
from services.runtime.execution.jobs import CallJob, StreamJob, Value
from services.runtime.formats.port import only_a_stream
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.cache import ModelCache, Resident
from services.runtime.replies.encoding import ReplyWriter
from services.runtime.replies.recall import Recall
from services.runtime.replies.reporting import Reporter
from services.runtime.replies.response_cache import ResponseCache
from services.runtime.replies.sender import ReplySender, Sent
from services.runtime.requests.batch_policy import batch_policy, prefetch
from services.runtime.requests.deadlines import Deadlines
from services.runtime.requests.layouts import Forms
from services.runtime.requests.request import NEVER, InHand, Request
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Cancelled, DeadlinePassed, Internal, ServiceError
from stellwerk.wire.topology import inference_queue

_NO_STREAMS: frozenset[str] = frozenset()


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
        responses: ResponseCache | None = None,
    ) -> None:
        self._broker, self._cache, self._executor, self._replies = broker, cache, executor, replies
        self._writer = ReplyWriter(name)
        self._reporter = Reporter(metrics, tracing, log)
        self._recall = Recall(responses if responses is not None else ResponseCache(0))
        self._log = log
        self._deadlines = Deadlines()
        self._alarm: asyncio.TimerHandle | None = None
        self._loads: set[asyncio.Task[None]] = set()
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Items in hand."""
        return self._in_hand

    async def open(self, key: str, version: repository_pb2.ModelVersion) -> Consumer:
        """Consumes the key's queue until the consumer is cancelled. Raises BrokerDown."""
        policy = batch_policy(version.serving, self._executor.max_batch_rows)
        forms = Forms(version, policy)
        lane = Lane(
            version.name,
            policy,
            answered=self._answered,
            emit=self._emit,
            recalls=version.serving.response_cache,
            hold=lambda: self._cache.try_lease(version.name),
            let_go=lambda: self._cache.release(version.name),
        )

        def handle(delivery: Delivery) -> None:
            self._handle(delivery, version, forms, lane)

        deliveries = prefetch(self._executor.slots, policy.max_rows, forms.declared())
        return await self._broker.consume(inference_queue(key), handle, prefetch=deliveries)

    def cancel(self, delivery: Delivery) -> None:
        """An event of a router: nobody waits for these items any more. What waits is dropped, what
        streams stops.
        """
        try:
            ids = set(work_pb2.Cancellation.FromString(delivery.message.body).ids)
        except DecodeError:
            return
        self._drop(self._deadlines.named(ids), lambda _: Cancelled("the caller went away"))

    async def idle(self) -> None:
        """Waits until nothing is in hand."""
        await self._idle.wait()

    def _handle(
        self, delivery: Delivery, version: repository_pb2.ModelVersion, forms: Forms, lane: Lane
    ) -> None:
        """Takes a message: no task, and no turn of the loop, as long as the model is in memory."""
        envelope = work_pb2.WorkEnvelope()
        try:
            envelope.ParseFromString(delivery.message.body)
        except DecodeError:
            self._log.error(
                "envelope_unreadable", model_version=lane.name, bytes=len(delivery.message.body)
            )
            delivery.nack(requeue=False)
            return
        items = envelope.items
        if not items:
            delivery.ack()
            return
        count = len(items)

        def finished(work: InHand) -> None:
            self._finish(work, delivery, count)

        work = InHand(lane, delivery.message.reply_to, time.monotonic(), count, finished)
        self._in_hand += count
        self._idle.clear()
        for item in items:
            try:
                work.requests.append(forms.admit(item, work))
            except Exception as exc:
                self._refuse(work, [item], exc)
        if lane.recalls:
            self._answer_again(work)
        if not work.requests:
            return
        if self._deadlines.add(work):
            self._set_alarm()
        resident = self._cache.try_lease(lane.name)
        if resident is not None:
            self._start(work, resident)
        else:
            task = asyncio.get_running_loop().create_task(self._load(work, version))
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)

    def _answer_again(self, work: InHand) -> None:
        """Answers what was answered before; the others are still the message's requests."""
        unknown = []
        for request in work.requests:
            found = self._recall.find(request)
            if found is None:
                unknown.append(request)
            else:
                self._send(work, [self._writer.kept(request, *found)])
                self._reporter.recalled(work.lane.name, request)
        work.requests = unknown

    async def _load(self, work: InHand, version: repository_pb2.ModelVersion) -> None:
        """Fetching and loading may outlast the callers; the load goes on without them, for the next
        one.
        """
        try:
            async with self._cache.lease(version):
                if any(request.open for request in work.requests):
                    resident = self._cache.try_lease(version.name)
                    assert resident is not None
                    self._start(work, resident)
        except Exception as exc:
            self._fail(work, [request for request in work.requests if request.open], exc)

    def _start(self, work: InHand, resident: Resident) -> None:
        """Hands the message's requests to the executor. From here on the lease is the message's."""
        work.model = resident.model
        requests: Sequence[Request] = work.requests
        streams: frozenset[str] = getattr(resident.model, "streams", _NO_STREAMS)
        if streams:
            requests = self._decoupled(work, streams)
        resident.calls += len(requests)
        self._executor.submit(work.lane, requests)

    def _decoupled(self, work: InHand, streams: frozenset[str]) -> list[Request]:
        """Marks what gives any number of answers; refuses it to callers that take only one."""
        allowed = []
        for request in work.requests:
            method = request.form.method.name
            if method in streams and not request.item.stream:
                self._fail(work, [request], only_a_stream(method))
            else:
                request.decoupled = method in streams
                allowed.append(request)
        return allowed

    def _answered(self, lane: Lane, job: CallJob | StreamJob) -> None:
        if job.outcome.refused:
            self._reporter.unjoinable(lane.name, job.requests[0].form.method.name)
        for piece in job.outcome.pieces:
            asked = [request for request in piece.requests if request.open]
            if asked:
                replies = self._writer.replies(piece, job.started)
                if lane.recalls and piece.columns:
                    self._recall.keep(asked, [frame for _, frames in replies for frame in frames])
                for work, frames in replies:
                    self._send(work, frames)
                self._reporter.called(lane.name, asked, piece, job.started)

    def _emit(self, request: Request, value: Value, sent: Sent) -> None:
        if request.open and request.work.queue:
            self._replies.send(request.work.queue, [self._writer.value(request, value)], sent)
        else:
            sent(1, False)

    def _fail(self, work: InHand, requests: Sequence[Request], exc: Exception) -> None:
        for request in requests:
            request.open = False
        if requests:
            self._refuse(work, [request.item for request in requests], exc)

    def _refuse(self, work: InHand, items: Sequence[work_pb2.WorkItem], exc: Exception) -> None:
        """Answers items without a call."""
        error = exc if isinstance(exc, ServiceError) else Internal("internal error in the runtime")
        waited = max(0.0, time.monotonic() - work.received)
        self._send(work, [self._writer.error(item.id, error, waited) for item in items])
        self._reporter.refused(
            work.lane.name, items, error, waited, exc if exc is not error else None
        )

    def _send(self, work: InHand, frames: Sequence[bytes]) -> None:
        if work.queue:
            self._replies.send(work.queue, frames, work.sent)
        else:
            work.sent(len(frames))

    def _finish(self, work: InHand, delivery: Delivery, items: int) -> None:
        """Every reply is with the broker."""
        delivery.ack()
        self._deadlines.remove(work)
        if work.model is not None:
            self._cache.release(work.lane.name)
        self._in_hand -= items
        if not self._in_hand:
            self._idle.set()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._deadlines.next < NEVER:
            seconds = max(0.0, self._deadlines.next - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Tells callers that their time is up when it is, whatever their requests are waiting
        for.
        """
        self._drop(self._deadlines.passed(time.monotonic()), _late)
        self._set_alarm()

    def _drop(self, requests: Sequence[Request], why: Callable[[Request], ServiceError]) -> None:
        lanes: dict[int, Lane] = {}
        for request in requests:
            self._fail(request.work, [request], why(request))
            lanes[id(request.work.lane)] = request.work.lane
        for lane in lanes.values():
            self._executor.purge(lane)


def _late(request: Request) -> DeadlinePassed:
    loading = request.work.model is None
    doing = "the model was being loaded" if loading else "the request waited for the model's answer"
    return DeadlinePassed(f"the deadline passed while {doing}")
