"""Sends work to the broker's queues and takes in the replies.

Work that gathers while a send is on its way goes with the next one. There is no timer for that, so
that a lone request waits for nobody. A request costs no task and no future; an envelope costs one
future.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import structlog
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Broker, Delivery
from services.router.dispatch.cancellations import Cancellations
from services.router.dispatch.group_dispatch import PAST, GroupDispatch, expired
from services.router.dispatch.metrics import (
    BROKER_DOWN,
    CANCELLED,
    DEADLINE_PASSED,
    DispatchMetrics,
)
from services.router.dispatch.sender import Sender
from services.router.queueing.admission import AdmissionLimits, QueuePolicy
from services.router.queueing.fair_queue import Backlog
from services.router.queueing.members import GroupWork, PendingGroup
from services.router.queueing.outbound_queue import LandedReply, OutboundQueue
from services.router.queueing.pending_requests import (
    LINGER_SECONDS,
    TICK_SECONDS,
    Outcome,
    PendingRequest,
    PendingRequests,
    ReplyHandler,
)
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import BrokerDown, DeadlinePassed, Overloaded, Unavailable

# Seconds that a request waits for its reply at most, whatever its deadline.
_LONGEST_SECONDS = 24 * 3600.0
_PLAIN = QueuePolicy()
_DEAF = "the router does not hear answers yet; try again in a moment"


class Dispatcher:
    """Submits work items and hands each caller its replies."""

    def __init__(
        self,
        broker: Broker,
        pending: PendingRequests,
        instance: str,
        log: structlog.typing.FilteringBoundLogger,
        *,
        slots: Callable[[str], int] = lambda key: 1,
        limits: AdmissionLimits | None = None,
        metrics: DispatchMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks `slots` for the number of calls that the runtimes ready for a key make at a time."""
        self._pending = pending
        self._log = log
        self._clock = clock
        self._broker = broker
        self._reply_queue = topology.reply_queue(instance)
        self._slots = slots
        self._limits = limits or AdmissionLimits()
        self._backlog = Backlog()
        self._metrics = metrics or DispatchMetrics(CollectorRegistry())
        self._queues: dict[str, OutboundQueue] = {}
        self._cancellations = Cancellations(broker, log)
        # The members of groups, to cancel them.
        self.groups = GroupDispatch(pending, self._queues, self._metrics, self._cancellations)
        self._sender = Sender(
            broker, self._reply_queue.name, self.groups, self._end, self._wake, clock, log
        )
        self._instance = instance
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False
        broker.on_lost(self._lost)

    async def listen(self) -> None:
        """Begins to take in replies."""
        await self._broker.consume(self._reply_queue, self._on_replies, prefetch=0, acks=False)
        self._loop = asyncio.get_running_loop()

    def submit(
        self,
        key: str,
        item: work_pb2.WorkItem,
        *,
        deadline: float,
        on_reply: ReplyHandler,
        tenant: str = "",
        policy: QueuePolicy = _PLAIN,
        cost: int = 1,
    ) -> str:
        """Queues an item and returns its id; sets the item's id, and its priority to one that the
        policy has.

        `on_reply` is called later, from the loop: with each reply that has `more` set, then exactly
        once with the last reply or an error. `deadline` is in time.monotonic(). `cost` is the
        item's share of the queue, such as its number of rows. Raises at once Overloaded (its
        `reason_detail` is queue_full, tenant_share or deadline_unreachable), DeadlinePassed, or
        Unavailable.
        """
        now = self._clock()
        queue = self._queues.get(key) or self._open(key)
        # Without levels all requests are equal, whatever they ask for.
        priority = policy.priority(item.priority) if policy.levels else policy.default_priority
        item.priority = priority
        item.id = id = f"{self._instance}.{next(self._numbers)}"
        item.timeout_ms = 0
        deadline = min(deadline, now + _LONGEST_SECONDS)
        request = PendingRequest(id, queue, on_reply, deadline, tenant, priority, cost)
        self._admit(queue, policy, request, now)
        request.body = item.SerializeToString()
        request.size = len(request.body)
        self._pending.add(request)
        queue.waiting.push(request)
        self._wake(queue)
        if not self._ticking:
            self._watch()
        return id

    def submit_group(
        self, key: str, work: GroupWork, members: list[int], tenant: str, policy: QueuePolicy
    ) -> None:
        """Queues the members of a group with these indexes. `work.on_reply` is called once for each
        of them: at once for those that are refused, with the errors that `submit` raises, and
        otherwise later, from the loop. Raises Unavailable if no member can be taken.
        """
        if self._loop is None:
            raise Unavailable(_DEAF)
        now = self._clock()
        queue = self._queues.get(key) or self._open(key)
        priority = policy.priority(work.form.priority)
        work.prepare(len(members), priority, now + _LONGEST_SECONDS)
        id = f"{self._instance}.{next(self._numbers)}"
        group = PendingGroup(id, queue, work, members, tenant)
        if self.groups.join(group, policy, now, self._sender.health.lasting_problem(now)):
            self._wake(queue)
            self._watch()

    def _admit(
        self, queue: OutboundQueue, policy: QueuePolicy, request: PendingRequest, now: float
    ) -> None:
        """Raises unless the request may wait in the queue."""
        if self._loop is None:
            raise Unavailable(_DEAF)
        health = self._sender.health
        seconds = request.deadline - now
        if seconds <= 0:
            self._metrics.rejected(queue.key, DEADLINE_PASSED)
            raise DeadlinePassed(PAST)
        # Nearly always the broker was fine when it was last asked, and is not asked again here.
        if health.failing_since is not None and (problem := health.lasting_problem(now)):
            self._metrics.rejected(queue.key, BROKER_DOWN)
            raise BrokerDown(f"{problem}; try again shortly")
        # A request that the window has room for is never refused, so nothing is worked out for it.
        if queue.underway + queue.waiting.cost + request.cost > queue.window.size:
            try:
                queue.check(policy, request, seconds)
            except Overloaded as exc:
                self._metrics.rejected(queue.key, exc.metadata["reason_detail"])
                raise

    def _wake(self, queue: OutboundQueue) -> None:
        """Has the sender look at a queue in the next turn of the loop, so that the requests which
        are submitted until then share an envelope.
        """
        if not queue.woken and self._loop is not None:
            queue.woken = True
            self._loop.call_soon(self._sender.send, queue)

    def cancel(self, id: str) -> None:
        """Ends a request whose caller went away: one that waits is not sent, and the reply to one
        that was sent is dropped.
        """
        request = self._pending.get(id)
        if request is None or request.on_reply is None:
            return
        self._metrics.rejected(request.queue.key, CANCELLED)
        if request.underway:
            # A runtime may work on it already: it counts as under way until its reply or deadline.
            request.on_reply = None
            self._cancellations.add(id)
        else:
            self._pending.end(request, None)

    def _open(self, key: str) -> OutboundQueue:
        queue = OutboundQueue(key, self._slots, self._limits, self._backlog)
        self._queues[key] = queue
        self._metrics.watch(key, lambda: queue.waiting.count, lambda: queue.underway)
        return queue

    def _on_replies(self, delivery: Delivery) -> None:
        try:
            envelope = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body)
        except DecodeError:
            self._log.warning("reply_unreadable", bytes=len(delivery.message.body))
            delivery.nack(requeue=False)
            return
        replies = [
            (request, reply)
            for reply in envelope.replies
            if (request := self._pending.get(reply.id)) is not None
        ]
        members = self.groups.land(envelope.groups, replies) if envelope.groups else []
        self._land([*replies, *members] if members else replies)
        for request, reply in replies:
            if reply.more:
                self._pending.tell(request, reply)
            else:
                late = reply.HasField("error") and reply.error.reason == DeadlinePassed.reason
                self._end(request, reply, DEADLINE_PASSED if late else "")
        if members:
            self.groups.end_landed(members)
        delivery.ack()

    def _land(self, replies: Sequence[LandedReply]) -> None:
        """Takes the requests with a first reply out of their windows, and sends on."""
        by_queue: dict[OutboundQueue, list[LandedReply]] = {}
        for requests, reply in replies:
            if requests.underway:
                queue = self._queues[requests.queue.key]
                by_queue.setdefault(queue, []).append((requests, reply))
        now = self._clock()
        for queue, landed in by_queue.items():
            if queue.land(landed, now):
                self._wake(queue)

    def _end(self, request: PendingRequest, outcome: Outcome, reason: str) -> None:
        """Ends a request, and counts the reason unless it is "" or the caller went away."""
        if reason and request.on_reply is not None:
            self._metrics.rejected(request.queue.key, reason)
        self._pending.end(request, outcome)

    def expire(self) -> None:
        """Ends the requests whose deadline has passed and retries what was held back. Called every
        tick while any request is pending.
        """
        now = self._clock()
        for ticket in self._pending.due(now):
            if isinstance(ticket, PendingGroup):
                self.groups.expire(ticket, now)
            else:
                self._give_up(ticket)
            queue = self._queues.get(ticket.queue.key)
            if queue is not None and queue.due:
                self._wake(queue)
        self._sender.retry()

    def _give_up(self, request: PendingRequest) -> None:
        if not request.underway or request.lingers:
            self._end(request, expired(request), DEADLINE_PASSED)
            return
        if request.on_reply is not None:
            self._metrics.rejected(request.queue.key, DEADLINE_PASSED)
        self._pending.tell(request, expired(request))
        self._pending.linger(request, request.deadline + LINGER_SECONDS)

    def _watch(self) -> None:
        """Has the deadlines looked at every tick, as long as there are any."""
        if self._loop is not None and not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self.expire()
        self._ticking = False
        if self._pending.watched:
            self._watch()

    def _lost(self, reason: str) -> None:
        """Ends what was sent, which may never be answered; the waiting work is sent when the broker
        is back.
        """
        lost = BrokerDown("the connection to the broker was lost; try again", cause=reason)
        self._pending.fail_sent(lost)
        for queue in self._queues.values():
            self._sender.lost(queue)

    def forget_if_idle(self, key: str) -> None:
        """Forgets the queue of a key that nobody uses any more, if nothing is in it."""
        queue = self._queues.get(key)
        if queue is not None and queue.idle:
            del self._queues[key]
            self._metrics.forget(key)

    def used_keys(self) -> list[str]:
        """Returns the keys that work was sent for, sorted."""
        return sorted(self._queues)
