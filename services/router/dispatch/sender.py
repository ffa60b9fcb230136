"""Sends lanes' envelopes and hears the broker's confirms. Work that the broker cannot take now is
held back and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from services.chassis.broker.port import Broker, Message
from services.router.dispatch import metrics as rejections
from services.router.dispatch.broker_health import Outage
from services.router.dispatch.envelope import encode
from services.router.queueing.admission import UNREACHABLE, hopeless
from services.router.queueing.outbound_queue import LEAST_SECONDS, Lane
from services.router.queueing.pending_requests import Outcome, Ticket
from stellwerk.wire import topology
from stellwerk.wire.errors import BrokerDown, DeadlinePassed, Overloaded, ServiceError, Unroutable

# A message that is not confirmed by then is not waited for.
_CONFIRM_SECONDS = 3.0
# After a send that failed the lane rests for so long: the next one would fail as well.
_REST_SECONDS = 0.1

# Ends a ticket that was not sent, and says for which reason it is counted.
End = Callable[[Ticket, Outcome, str], None]


class Sender:
    """Lanes' way out."""

    def __init__(
        self,
        broker: Broker,
        reply_to: str,
        end: End,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._broker, self._reply_to, self._end, self._clock, self._log = (
            broker,
            reply_to,
            end,
            clock,
            log,
        )
        self.outage = Outage(broker)
        # Kept, because asking for the running loop is a system call each time.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Lanes whose work waits for the broker, not for answers.
        self._held: set[Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, lane: Lane) -> None:
        """Has the lane's work sent in the next turn of the loop, with what joins till then, if it
        is to be sent now.
        """
        if lane.woken or not lane.due:
            return
        now = self._clock()
        if now < lane.rests_until or self.outage.seen(now):
            self._held.add(lane)
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        lane.woken = True
        self._loop.call_soon(self._send, lane)

    def retry(self) -> None:
        """Looks after the work that was held back."""
        held, self._held = self._held, set()
        for lane in held:
            self.wake(lane)

    def lost(self, lane: Lane) -> None:
        """The connection is another one: the queue may be gone, and no answer will have the lane's
        work sent.
        """
        lane.declared = False
        self._held.add(lane)

    def _send(self, lane: Lane) -> None:
        lane.woken = False
        now = self._clock()
        batch, late = lane.cut(now)
        for ticket in late:
            self._end_late(ticket, now)
        if batch:
            lane.sends += 1
            message = self._message(lane.key, batch, now)
            if lane.declared:
                self._post(lane, message).add_done_callback(
                    partial(self._confirmed, lane, batch, message)
                )
            else:
                self._declare(lane, batch, message)
        self.wake(lane)

    def _message(self, key: str, batch: Sequence[Ticket], now: float) -> Message:
        items = [(ticket.body, max(1, int((ticket.deadline - now) * 1000))) for ticket in batch]
        for ticket in batch:
            ticket.body = b""
        longest = max(timeout_ms for _, timeout_ms in items)
        return Message(body=encode(key, items), reply_to=self._reply_to, expiration_ms=longest)

    def _post(self, lane: Lane, message: Message) -> asyncio.Future[None]:
        timeout = min(_CONFIRM_SECONDS, message.expiration_ms / 1000)
        return self._broker.post(topology.inference_queue(lane.key).name, message, timeout=timeout)

    def _declare(self, lane: Lane, batch: Sequence[Ticket], message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self._declare_and_post(lane, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(self._confirmed, lane, batch, None))

    async def _declare_and_post(self, lane: Lane, message: Message) -> None:
        await self._broker.declare(topology.inference_queue(lane.key))
        lane.declared = True
        await self._post(lane, message)

    def _confirmed(
        self,
        lane: Lane,
        batch: Sequence[Ticket],
        again: Message | None,
        posted: asyncio.Future[None],
    ) -> None:
        """The broker took the batch, or did not; `again` is the message if it may be tried once
        more.
        """
        error = None if posted.cancelled() else posted.exception()
        if isinstance(error, Unroutable) and again is not None:
            # Nobody used the queue for so long that it went away; the broker did not take the
            # message.
            self._declare(lane, batch, again)
            return
        if posted.cancelled():
            self._failed(lane, batch, BrokerDown("the router is stopping; try again"))
        elif isinstance(error, ServiceError):
            self._failed(lane, batch, error)
        elif error is not None:
            self._log.error("dispatch_failed", key=lane.key, exc_info=error)
            self._failed(lane, batch, BrokerDown("the work could not be sent; try again"))
        lane.sends -= 1
        self.wake(lane)

    def _end_late(self, ticket: Ticket, now: float) -> None:
        left = ticket.deadline - now
        if left < LEAST_SECONDS:
            late = DeadlinePassed(
                "the deadline passed when the request's turn came; give the call more time"
            )
            self._end(ticket, late, rejections.DEADLINE_PASSED)
        else:
            self._end(
                ticket,
                hopeless(f"the request's turn came {left:.3f} s before its deadline"),
                UNREACHABLE,
            )

    def _failed(self, lane: Lane, batch: Sequence[Ticket], error: ServiceError) -> None:
        lane.declared = False
        lane.rests_until = self._clock() + _REST_SECONDS
        reason = rejections.BROKER_DOWN
        if isinstance(error, Overloaded):
            reason = error.metadata["reason_detail"] = rejections.BROKER_FULL
        for ticket in batch:
            self._end(ticket, error, reason)
