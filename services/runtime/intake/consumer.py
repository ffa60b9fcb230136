"""Consumes the queues of served versions: delivery → requests → batch → call → replies.

1. `_take` turns a delivery into requests, and answers those that are invalid or cached. A group is
   one request of all its members, or one for each where they may not share a call.
2. `_submit` queues the others, at once or after `_load` brought the model into memory.
3. The scheduler forms batches of queued requests and has worker threads call the model.
4. The responder answers the requests of each call; its replies share messages to the routers.
5. `_finish` acknowledges the delivery once the broker has every reply to it. If the runtime dies
   before that, the broker gives the delivery to another one.

`_expire` and `cancel` answer requests early, wherever they are on this way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from services.chassis.broker.port import Broker, Consumer, Delivery
from services.runtime.batching.scheduler import ModelQueue, Scheduler
from services.runtime.formats.port import streaming_only
from services.runtime.intake.in_hand import WorkInHand
from services.runtime.models.cache import ModelCache, Resident
from services.runtime.replies.responder import Responder
from services.runtime.requests.batch_policy import batch_policy, prefetch_count
from services.runtime.requests.layouts import RequestLayouts
from services.runtime.requests.members import close, open_group, still_open
from services.runtime.requests.request import NEVER, Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Cancelled, DeadlinePassed, ServiceError
from stellwerk.wire.topology import WORK_CANCELLED, inference_queue


@dataclass(frozen=True, slots=True, eq=False)
class _ServedVersion:
    """A version whose queue is consumed."""

    version: repository_pb2.ModelVersion
    layouts: RequestLayouts
    queue: ModelQueue


class WorkConsumer:
    """Sees the requests of served versions through, from their delivery to their reply."""

    def __init__(
        self,
        broker: Broker,
        cache: ModelCache,
        scheduler: Scheduler,
        responder: Responder,
        *,
        log: Any,
    ) -> None:
        self._broker = broker
        self._cache = cache
        self._scheduler = scheduler
        self._responder = responder
        self._log = log
        self._in_hand = WorkInHand()
        self._items = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._alarm: asyncio.TimerHandle | None = None
        self._loads: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Number of items and members of groups that are not answered yet."""
        return self._items

    async def idle(self) -> None:
        """Waits until every item and member is answered and acknowledged."""
        await self._idle.wait()

    async def listen(self) -> None:
        """Subscribes to the cancellations of routers. Raises BrokerDown."""
        await self._broker.subscribe(WORK_CANCELLED, self.cancel)

    async def open(self, key: str, version: repository_pb2.ModelVersion) -> Consumer:
        """Consumes the queue of a serving key until the returned consumer is cancelled.

        Raises BrokerDown.
        """
        policy = batch_policy(version.serving, self._scheduler.max_batch_rows)
        layouts = RequestLayouts(version, policy)
        queue = ModelQueue(
            version.name,
            policy,
            answered=partial(self._responder.answer, version.name, version.serving.response_cache),
            emit=self._responder.answer_part,
            caches_responses=version.serving.response_cache,
            hold=partial(self._cache.try_lease, version.name),
            let_go=partial(self._cache.release, version.name),
        )
        served = _ServedVersion(version, layouts, queue)
        prefetch = prefetch_count(self._scheduler.slots, policy.max_rows, layouts.declared())
        return await self._broker.consume(
            inference_queue(key), lambda delivery: self._take(delivery, served), prefetch=prefetch
        )

    def _take(self, delivery: Delivery, served: _ServedVersion) -> None:
        """Turns a delivery into requests and queues them, or answers them at once.

        Starts no task and takes no turn of the event loop while the model is in memory.
        """
        envelope = work_pb2.WorkEnvelope()
        body = delivery.message.body
        try:
            envelope.ParseFromString(body)
        except DecodeError:
            self._log.error("envelope_unreadable", model_version=served.queue.name, bytes=len(body))
            delivery.nack(requeue=False)
            return
        items = envelope.items
        groups = envelope.groups
        total = len(items)
        if groups:
            total += sum([len(group.timeouts_ms) for group in groups])
        if not total:
            delivery.ack()
            return
        work = self._open_message(delivery, served, total)
        self._admit(work, items, groups, served)
        if not work.requests:
            return
        if self._in_hand.add(work):
            self._set_alarm()
        resident = self._cache.try_lease(served.queue.name)
        if resident is not None:
            self._submit(work, resident, served)
        else:
            task = asyncio.get_running_loop().create_task(self._load(work, served))
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)

    def _admit(
        self,
        work: WorkMessage,
        items: Iterable[work_pb2.WorkItem],
        groups: Iterable[work_pb2.WorkGroup],
        served: _ServedVersion,
    ) -> None:
        """Adds the requests to the message; answers those that are invalid or cached."""
        caches = served.queue.caches_responses
        for item in items:
            try:
                work.requests.append(served.layouts.admit(item, work))
            except Exception as exc:
                self._responder.refuse(work, [item], exc, time.monotonic())
        for given in groups:
            group = open_group(given, work.received)
            if not group.timeouts_ms:
                continue
            try:
                # Each member's response is looked up by itself.
                work.requests += served.layouts.admit_group(group, work, whole=not caches)
            except Exception as exc:
                members = range(len(group.timeouts_ms))
                self._responder.refuse_members(work, group, members, exc, time.monotonic())
        if caches:
            work.requests = [
                request
                for request in work.requests
                if not self._responder.answer_from_cache(request)
            ]

    def _open_message(self, delivery: Delivery, served: _ServedVersion, total: int) -> WorkMessage:
        def finished(work: WorkMessage) -> None:
            self._finish(work, delivery, total)

        self._items += total
        self._idle.clear()
        return WorkMessage(
            served.queue.name, delivery.message.reply_to, time.monotonic(), total, finished
        )

    async def _load(self, work: WorkMessage, served: _ServedVersion) -> None:
        """Loads the model, then submits the requests.

        The load goes on for later requests even if it outlasts the callers of these.
        """
        try:
            async with self._cache.lease(served.version):
                work.requests = still_open(work.requests)
                if work.requests:
                    resident = self._cache.try_lease(served.version.name)
                    assert resident is not None
                    self._submit(work, resident, served)
        except Exception as exc:
            self._fail(work, still_open(work.requests), exc)

    def _submit(self, work: WorkMessage, resident: Resident, served: _ServedVersion) -> None:
        """Hands the message's requests to the scheduler; the message takes over the lease."""
        work.model = resident.model
        requests = work.requests
        if resident.model.streams:
            requests = self._mark_streams(work, resident.model.streams)
        resident.calls += sum([len(request.members) or 1 for request in requests])
        self._scheduler.submit(served.queue, requests)

    def _mark_streams(self, work: WorkMessage, streams: frozenset[str]) -> list[Request]:
        """Marks requests of streaming methods; refuses those whose caller takes one answer only."""
        accepted = []
        for request in work.requests:
            method = request.layout.method.name
            if method in streams and not request.item.stream:
                self._fail(work, [request], streaming_only(method))
            else:
                request.streams = method in streams
                accepted.append(request)
        return accepted

    def _finish(self, work: WorkMessage, delivery: Delivery, total: int) -> None:
        """Acknowledges a message, all of whose replies are with the broker."""
        delivery.ack()
        # The requests point to the message: it and its data are freed now, by no garbage collector.
        work.requests = []
        self._in_hand.remove(work)
        if work.model is not None:
            self._cache.release(work.model_version)
        self._items -= total
        if not self._items:
            self._idle.set()

    def cancel(self, delivery: Delivery) -> None:
        """Drops the requests that a router's cancellation names, and stops their streams."""
        try:
            cancelled = work_pb2.Cancellation.FromString(delivery.message.body)
        except DecodeError:
            return
        members: dict[str, set[int]] = {}
        for group in cancelled.groups:
            members.setdefault(group.id, set()).update(group.members)
        found = self._in_hand.find(set(cancelled.ids), members)
        self._drop(found, lambda _: Cancelled("the caller went away"))

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._in_hand.next < NEVER:
            seconds = max(0.0, self._in_hand.next - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Answers requests whose deadline has passed, whether they wait for a load or a slot."""
        self._drop(self._in_hand.expired(time.monotonic()), _late)
        self._set_alarm()

    def _drop(self, requests: Sequence[Request], why: Callable[[Request], ServiceError]) -> None:
        for request in requests:
            self._fail(request.work, [request], why(request))
        if requests:
            self._scheduler.purge()

    def _fail(self, work: WorkMessage, requests: Sequence[Request], exc: Exception) -> None:
        now = time.monotonic()
        for request in requests:
            close(request)
            if request.group is not None:
                self._responder.refuse_members(work, request.group, request.members, exc, now)
        items = [request.item for request in requests if request.group is None]
        if items:
            self._responder.refuse(work, items, exc, now)


def _late(request: Request) -> DeadlinePassed:
    loading = request.work.model is None
    doing = "the model was being loaded" if loading else "the request waited for the model's answer"
    return DeadlinePassed(f"the deadline passed while {doing}")
