"""Sends work to queues and hears the answers. What gathers while a send is in flight goes with the
next one: no timer, so that a lone request waits for nobody. A request costs no task and no future,
only an envelope costs a future."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Broker, Delivery
from services.router.dispatch import metrics as rejections
from services.router.dispatch.cancellations import Cancellations
from services.router.dispatch.metrics import DispatchMetrics
from services.router.dispatch.sender import Sender
from services.router.queueing.admission import Backlog, Limits
from services.router.queueing.outbound_queue import Lane
from services.router.queueing.pending_requests import Answered as Answered
from services.router.queueing.pending_requests import Outcome, PendingTable, Ticket
from services.router.queueing.queue_policy import QueuePolicy
from services.router.queueing.timing_wheel import TICK_SECONDS
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import BrokerDown, DeadlinePassed, Overloaded, Unavailable

# Nobody waits longer.
_LONGEST_SECONDS = 24 * 3600.0
# A runtime stops, or answers too late, within this time of a deadline; the message of one that died
# is gone as well.
_LINGER_SECONDS = 1.0
_PLAIN = QueuePolicy()


class Dispatcher:
    """The router's side of the broker. `slots` says how many calls the runtimes ready for a key
    make at a time.
    """

    def __init__(
        self,
        broker: Broker,
        pending: PendingTable,
        instance: str,
        log: structlog.typing.FilteringBoundLogger,
        *,
        slots: Callable[[str], int] = lambda key: 1,
        limits: Limits | None = None,
        metrics: DispatchMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker, self._pending, self._log, self._clock = broker, pending, log, clock
        self._reply_queue = topology.reply_queue(instance)
        self._slots, self._backlog = slots, Backlog(limits or Limits())
        self._metrics = metrics or DispatchMetrics(CollectorRegistry())
        self._sender = Sender(broker, self._reply_queue.name, self._end, clock, log)
        self._cancellations = Cancellations(broker, log)
        self._lanes: dict[str, Lane] = {}
        self._ids = (f"{instance}.{number}" for number in itertools.count(1))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False
        broker.on_lost(self._lost)

    @property
    def listening(self) -> bool:
        """Whether answers are heard; nothing is sent before."""
        return self._loop is not None

    async def listen(self) -> None:
        """Begins to hear answers."""
        await self._broker.consume(self._reply_queue, self._on_replies, prefetch=0, acks=False)
        self._loop = asyncio.get_running_loop()

    def submit(
        self,
        key: str,
        item: work_pb2.WorkItem,
        *,
        deadline: float,
        answered: Answered,
        tenant: str = "",
        policy: QueuePolicy = _PLAIN,
        cost: int = 1,
    ) -> str:
        """Queues an item and returns its id; the id and the priority that holds are set in the
        item.

        `answered` is called later, from the loop: with each reply that has `more` set, then exactly
        once with the last reply or the error. `deadline` is of time.monotonic(). `cost` is what the
        item counts for, such as its rows. Raises at once Overloaded (its `reason_detail` is
        queue_full, tenant_share or deadline_unreachable), DeadlinePassed, or Unavailable.
        """
        now = self._clock()
        lane = self._lanes.get(key) or self._open(key)
        item.priority = priority = policy.priority(item.priority)
        self._admit(lane, policy, tenant, priority, cost, deadline - now, now)
        item.id = id = next(self._ids)
        item.timeout_ms = 0
        deadline = min(deadline, now + _LONGEST_SECONDS)
        ticket = Ticket(
            id, lane, answered, deadline, tenant, priority, cost, item.SerializeToString()
        )
        self._pending.add(ticket)
        lane.join(ticket)
        self._sender.wake(lane)
        if not self._ticking and self._loop is not None:
            self._ticking = True
            self._loop.call_later(TICK_SECONDS, self._tick)
        return id

    def _admit(
        self,
        lane: Lane,
        policy: QueuePolicy,
        tenant: str,
        priority: int,
        cost: int,
        seconds: float,
        now: float,
    ) -> None:
        if self._loop is None:
            raise Unavailable("the router does not hear answers yet; try again in a moment")
        if seconds <= 0:
            self._metrics.rejected(lane.key, rejections.DEADLINE_PASSED)
            raise DeadlinePassed(
                "the deadline passed before the request was queued; give the call more time"
            )
        problem = self._sender.outage.lasts(now)
        if problem:
            self._metrics.rejected(lane.key, rejections.BROKER_DOWN)
            raise BrokerDown(f"{problem}; try again shortly")
        try:
            lane.check(policy, tenant, priority, cost, seconds)
        except Overloaded as exc:
            self._metrics.rejected(lane.key, exc.metadata["reason_detail"])
            raise

    def cancel(self, id: str) -> None:
        """The caller went away: an item that waits is not sent, the answer to one that was sent is
        dropped.
        """
        ticket = self._pending.get(id)
        if ticket is None or ticket.answered is None:
            return
        self._metrics.rejected(ticket.holder.key, rejections.CANCELLED)
        if ticket.underway:
            # A runtime may be at it already: until its answer or its deadline it counts as under
            # way.
            ticket.answered = None
            self._cancellations.add(id)
        else:
            self._pending.end(ticket, None)

    def _open(self, key: str) -> Lane:
        lane = self._lanes[key] = Lane(key, self._slots, self._backlog)
        self._metrics.watch(key, lambda: lane.queue.count, lambda: lane.underway)
        return lane

    def _on_replies(self, delivery: Delivery) -> None:
        try:
            envelope = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body)
        except DecodeError:
            self._log.warning("reply_unreadable", bytes=len(delivery.message.body))
            delivery.nack(requeue=False)
            return
        now = self._clock()
        lanes: set[Lane] = set()
        for reply in envelope.replies:
            ticket = self._pending.get(reply.id)
            if ticket is None:
                continue
            if ticket.underway:
                lane = self._lanes[ticket.holder.key]
                lane.landed(ticket, reply, now)
                lanes.add(lane)
            if reply.more:
                self._pending.tell(ticket, reply)
            else:
                expired = reply.HasField("error") and reply.error.reason == DeadlinePassed.reason
                self._end(ticket, reply, rejections.DEADLINE_PASSED if expired else "")
        delivery.ack()
        for lane in lanes:
            lane.answered(now)
            self._sender.wake(lane)

    def _end(self, ticket: Ticket, outcome: Outcome, reason: str) -> None:
        """Ends a ticket, and counts why if there is a reason and somebody who is told."""
        if reason and ticket.answered is not None:
            self._metrics.rejected(ticket.holder.key, reason)
        self._pending.end(ticket, outcome)

    def expire(self) -> None:
        """Ends what is due and sees to what was held back; called every few milliseconds while
        anybody waits.
        """
        for ticket in self._pending.due(self._clock()):
            self._give_up(ticket)
            lane = self._lanes.get(ticket.holder.key)
            if lane is not None:
                self._sender.wake(lane)
        self._sender.retry()

    def _give_up(self, ticket: Ticket) -> None:
        late = DeadlinePassed(_LATE if ticket.sent_at else _WAITED)
        if not ticket.underway or ticket.lingers:
            self._end(ticket, late, rejections.DEADLINE_PASSED)
            return
        if ticket.answered is not None:
            self._metrics.rejected(ticket.holder.key, rejections.DEADLINE_PASSED)
        self._pending.tell(ticket, late)
        self._pending.linger(ticket, ticket.deadline + _LINGER_SECONDS)

    def _tick(self) -> None:
        self.expire()
        self._ticking = self._loop is not None and len(self._pending) > 0
        if self._loop is not None and self._ticking:
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _lost(self, reason: str) -> None:
        """What was sent may never be answered; what waits is sent when the broker is back."""
        self._pending.fail_sent(
            BrokerDown("the connection to the broker was lost; try again", cause=reason)
        )
        for lane in self._lanes.values():
            self._sender.lost(lane)

    def idle(self, key: str) -> None:
        """Forgets what is kept for a key that nobody uses any more."""
        lane = self._lanes.get(key)
        if lane is not None and lane.idle:
            del self._lanes[key]
            self._metrics.forget(key)

    def used_keys(self) -> list[str]:
        """The keys that work was sent for."""
        return sorted(self._lanes)


_LATE = "no runtime answered before the deadline; give the call more time"
_WAITED = (
    "the deadline passed before the request's turn came; give the call more time or send less at a"
    " time"
)
