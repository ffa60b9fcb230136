"""The way to one queue of the broker: what waits for it here, how much is under way, and what goes
next. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Callable

from services.router.queueing import admission
from services.router.queueing.admission import Backlog, Load
from services.router.queueing.fair_queue import FairQueue
from services.router.queueing.pending_requests import Ticket
from services.router.queueing.queue_policy import QueuePolicy
from services.router.queueing.send_window import CallSizes, window
from services.router.queueing.service_rate import Speed
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import Overloaded

# Bounds of one envelope: more does not amortise better, and the runtime is to begin while the rest
# is still looked at here. With 32 instead of 128 a fifth more requests of 64 callers were answered
# for the same CPU.
MAX_ITEMS = 32
MAX_BYTES = 1024 * 1024
# Sends not yet confirmed. While one is, only a full envelope goes: what gathers meanwhile goes
# together.
MAX_SENDS = 8
# What has less time left than this is not sent: it could not even be received.
LEAST_SECONDS = 0.001
# What has less than this share of the time that its answer is expected to take is not sent either.
_SURE = 0.8
# The runtime answered these without working on them.
_UNWORKED = frozenset(("DEADLINE_PASSED", "OVERLOADED", "UNAVAILABLE", "CANCELLED"))


class Lane:
    """Requests of one serving key. `slots` is how many calls the runtimes that are ready for it
    make at a time.
    """

    def __init__(self, key: str, slots: Callable[[str], int], backlog: Backlog) -> None:
        self.key = key
        self.queue = FairQueue()
        self.underway = 0
        # Unconfirmed sends.
        self.sends = 0
        # The queue of the broker is known to exist.
        self.declared = False
        # A send is about to cut its envelope.
        self.woken = False
        # Nothing is sent before: the broker did not take the last envelope.
        self.rests_until = 0.0
        self._slots_of, self._backlog = slots, backlog
        self._speed, self._sizes = Speed(), CallSizes()
        # Whether the runtimes tell of their calls; None before the first answer.
        self._reports: bool | None = None
        # More was wanted than may be under way, ever since the last answers.
        self._saturated = False
        self._landed = 0
        self.measure()

    def measure(self) -> None:
        """Sets the window anew: runtimes come and go, and answers say how fast they are."""
        self.slots = max(1, self._slots_of(self.key))
        rate = self._speed.rate(self.slots)
        reports, per_slot = self._reports is not False, self._backlog.limits.window_per_slot
        self.window = window(self._sizes, rate, self.slots, reports=reports, per_slot=per_slot)

    def check(
        self, policy: QueuePolicy, tenant: str, priority: int, cost: int, seconds: float
    ) -> None:
        """Raises Overloaded unless a request with so many seconds left may join; see
        `admission`.
        """
        if self.underway + self.queue.cost + cost <= self.window:
            return
        load = Load(self.queue, self._backlog, self._speed, self.underway, self.window, self.slots)
        try:
            admission.check(load, policy, tenant, priority, cost, seconds)
        except Overloaded:
            self._saturated = True
            raise

    def join(self, ticket: Ticket) -> None:
        """The ticket waits from now on."""
        self.queue.push(ticket)
        self._backlog.add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """The ticket neither waits nor is waited for any more."""
        if ticket.underway:
            ticket.underway = False
            self.underway -= ticket.cost
        elif not ticket.sent_at:
            self.queue.remove(ticket)
            self._backlog.remove(ticket)

    def cut(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Takes off what is to be sent now, as one envelope, and what came to its turn too late to
        be sent.
        """
        batch: list[Ticket] = []
        late: list[Ticket] = []
        if not self.due:
            return batch, late
        queue, size, rate = self.queue, 0, self._speed.rate(self.slots)
        while queue.count and self.underway < self.window and len(batch) < MAX_ITEMS:
            size += len(queue.head().body)
            if batch and size > MAX_BYTES:
                break
            ticket = queue.pop()
            self._backlog.remove(ticket)
            ticket.sent_at = now
            if ticket.deadline - now < self._least(rate, ticket.cost):
                late.append(ticket)
                continue
            ticket.underway = True
            self.underway += ticket.cost
            batch.append(ticket)
        return batch, late

    def _least(self, rate: float, cost: int) -> float:
        """Seconds below which nothing is sent any more. With nothing under way everything is: so
        the model is tried.
        """
        if not self.underway:
            return LEAST_SECONDS
        queued = (self.underway + cost) / rate * _SURE if rate else 0.0
        return max(LEAST_SECONDS, self._speed.fastest, queued)

    @property
    def due(self) -> bool:
        """Whether to send now; otherwise it is better done when more has gathered, or more may
        go.
        """
        queue = self.queue
        room = self.window - self.underway
        if not queue.count or room <= 0 or self.sends >= MAX_SENDS:
            return False
        if queue.cost > room and room < self.window // 8:
            return False
        return not self.sends or min(queue.count, room) >= MAX_ITEMS or queue.bytes >= MAX_BYTES

    def landed(self, ticket: Ticket, reply: work_pb2.WorkReply, now: float) -> None:
        """The first answer to a ticket came: it is not counted as under way any more."""
        ticket.underway = False
        self.underway -= ticket.cost
        if reply.HasField("error") and reply.error.reason in _UNWORKED:
            return
        self._landed += ticket.cost
        if reply.leads and reply.compute_ns:
            self._reports = True
            rows = reply.rows or 1
            self._sizes.observe(
                max(1.0, (reply.batch_rows or rows) / rows * ticket.cost), reply.compute_ns / 1e9
            )
            self._speed.took(now, now - ticket.sent_at)

    def answered(self, now: float) -> None:
        """All of one delivery's answers have landed."""
        if self._landed:
            self._speed.answered(now, self._landed, self.slots, saturated=self._saturated)
            self._landed = 0
            self._reports = bool(self._reports)
        self.measure()
        self._saturated = self.underway + self.queue.cost > self.window

    @property
    def idle(self) -> bool:
        """Nothing waits or is under way."""
        return not (self.queue.count or self.underway or self.sends)
