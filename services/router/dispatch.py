"""Sends work to queues and hears the answers. What gathers while a send is in flight goes with the next one: no timer,
so that a lone request waits for nobody."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import structlog
from google.protobuf.message import DecodeError

from services.chassis.broker.port import Broker, Delivery, Message
from services.router.pending import PendingTable
from services.wire import topology
from services.wire.errors import BrokerDown, DeadlinePassed, ServiceError, Unavailable
from stellwerk.job.v1 import work_pb2

# Bounds of one envelope: more does not amortise better and delays the first answer.
MAX_ITEMS = 64
MAX_BYTES = 1024 * 1024
_EXPIRE_SECONDS = 0.02
_CONFIRM_SECONDS = 3.0


class Lane:
    """Items on their way to one queue."""

    def __init__(self) -> None:
        self.waiting: list[tuple[work_pb2.WorkItem, float]] = []
        self.sending = False
        self.declared = False


class Dispatcher:
    """The router's side of the broker."""

    def __init__(
        self, broker: Broker, pending: PendingTable, instance: str, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._broker, self._pending, self._log = broker, pending, log
        self._reply_queue = topology.reply_queue(instance)
        self._lanes: dict[str, Lane] = {}
        self._ids = (f"{instance}.{number}" for number in itertools.count(1))
        self._tasks: set[asyncio.Task[None]] = set()
        self.listening = False
        broker.on_lost(self._lost)

    def _lost(self, reason: str) -> None:
        self._pending.fail_all(BrokerDown("the connection to the broker was lost; try again", cause=reason))
        for lane in self._lanes.values():
            lane.declared = False

    async def listen(self) -> None:
        """Hears answers and expires what got none; to be run in the background."""
        if not self.listening:
            await self._broker.consume(self._reply_queue, self._on_replies, prefetch=0)
            self.listening = True
        while True:
            self._pending.expire(time.monotonic())
            await asyncio.sleep(_EXPIRE_SECONDS)

    async def _on_replies(self, delivery: Delivery) -> None:
        try:
            envelope = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body)
        except DecodeError:
            self._log.warning("reply_unreadable", bytes=len(delivery.message.body))
            delivery.nack(requeue=False)
            return
        for reply in envelope.replies:
            self._pending.settle(reply)
        delivery.ack()

    async def call(self, key: str, item: work_pb2.WorkItem, deadline: float) -> work_pb2.WorkReply:
        """Sends an item (its id is set here) and waits for its answer until `deadline`, of time.monotonic().

        Raises what the broker raises, DeadlinePassed, or the error that the runtime answered.
        """
        if not self.listening:
            raise Unavailable("the router does not hear answers yet; try again in a moment")
        item.id = next(self._ids)
        future = self._pending.add(item.id, key, deadline)
        lane = self._lanes.setdefault(key, Lane())
        lane.waiting.append((item, deadline))
        if not lane.sending:
            lane.sending = True
            task = asyncio.create_task(self._drive(key, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await future
        finally:
            self._pending.forget(item.id)

    async def _drive(self, key: str, lane: Lane) -> None:
        try:
            while lane.waiting:
                batch = _cut(lane)
                try:
                    await self._send(key, lane, batch)
                except ServiceError as exc:
                    lane.declared = False
                    for item, _ in batch:
                        self._pending.fail(item.id, exc)
                except Exception:
                    self._log.exception("dispatch_failed", key=key)
                    for item, _ in batch:
                        self._pending.fail(item.id, BrokerDown("the work could not be sent; try again"))
        finally:
            lane.sending = False

    async def _send(self, key: str, lane: Lane, batch: Sequence[tuple[work_pb2.WorkItem, float]]) -> None:
        now = time.monotonic()
        envelope = work_pb2.WorkEnvelope(key=key)
        longest = 0
        for item, deadline in batch:
            item.timeout_ms = int((deadline - now) * 1000)
            if item.timeout_ms <= 0:
                self._pending.fail(item.id, DeadlinePassed("the deadline passed before the work was sent"))
                continue
            longest = max(longest, item.timeout_ms)
            envelope.items.append(item)
        if not envelope.items:
            return
        spec = topology.inference_queue(key)
        if not lane.declared:
            await self._broker.declare(spec)
            lane.declared = True
        message = Message(body=envelope.SerializeToString(), reply_to=self._reply_queue.name, expiration_ms=longest)
        await self._broker.publish(spec.name, message, timeout=min(_CONFIRM_SECONDS, longest / 1000))

    def idle(self, key: str) -> None:
        """Forgets what is kept for a key that nobody uses any more."""
        lane = self._lanes.get(key)
        if lane is not None and not lane.waiting and not lane.sending:
            del self._lanes[key]

    def used_keys(self) -> list[str]:
        """The keys that work was sent for."""
        return sorted(self._lanes)


def _cut(lane: Lane) -> list[tuple[work_pb2.WorkItem, float]]:
    """Takes the next envelope's items off the lane: at least one, within the bounds."""
    size = 0
    for count, (item, _) in enumerate(lane.waiting):
        size += item.ByteSize()
        if count and (count >= MAX_ITEMS or size > MAX_BYTES):
            break
    else:
        count = len(lane.waiting)
    batch, lane.waiting = lane.waiting[:count], lane.waiting[count:]
    return batch
