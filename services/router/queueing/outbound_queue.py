"""The outbound queue of one serving key: requests that wait here, requests that are with the
broker, and which go next. Pure; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.router.queueing import admission
from services.router.queueing.admission import AdmissionLimits, QueueLoad, QueuePolicy
from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.pending_requests import PendingRequest, RequestReply
from services.router.queueing.send_window import SendWindow
from stellwerk.wire import topology
from stellwerk.wire.errors import Overloaded

# Requests and bytes of one envelope. A larger one does not amortise better, and the runtime is to
# begin while the rest is still looked at here. 32: a fifth more requests of 64 callers for the same
# CPU than with 128, measured 2026-11.
MAX_ITEMS = 32
MAX_BYTES = 1024 * 1024
# Sends that the broker has not confirmed. While there is one, only a full envelope goes, so that
# the requests that gather meanwhile go together.
MAX_SENDS = 8
# Seconds before its deadline below which a request is not sent: it could not even be received.
LEAST_SECONDS = 0.001
# A request is not sent either with less time than this share of what its reply is expected to take.
_SURE = 0.8


class OutboundQueue:
    """The requests of one serving key on their way out."""

    def __init__(
        self, key: str, slots: Callable[[str], int], limits: AdmissionLimits, backlog: Backlog
    ) -> None:
        """Asks `slots` for the number of calls that the runtimes ready for a key make at a time."""
        self.key = key
        # The broker's queue.
        self.spec = topology.inference_queue(key)
        self.waiting = FairQueue(backlog)
        # Cost of the requests that are sent and have no reply yet.
        self.underway = 0
        self.window = SendWindow(limits.window_per_slot, slots(key))
        # Sends that are not confirmed.
        self.sends = 0
        # The queue of the broker is known to exist.
        self.declared = False
        # The sender is about to look whether an envelope is due.
        self.woken = False
        # Nothing is sent before: the broker did not take the last envelope.
        self.rests_until = 0.0
        self._slots = slots
        self._limits = limits
        self._backlog = backlog
        # More was wanted than may be under way, ever since the last replies.
        self._saturated = False

    def check(self, policy: QueuePolicy, request: PendingRequest, seconds: float) -> None:
        """Raises Overloaded unless a request with `seconds` left may join."""
        window = self.window
        load = QueueLoad(
            self.waiting,
            self._backlog,
            self.underway,
            window.size,
            window.rate,
            window.fastest,
        )
        try:
            admission.check(load, self._limits, policy, request, seconds)
        except Overloaded:
            self._saturated = True
            raise

    def leave(self, request: PendingRequest) -> None:
        """Takes out a request that is neither to be sent nor waited for any more."""
        if request.underway:
            request.underway = False
            self.underway -= request.cost
        elif not request.sent_at:
            self.waiting.remove(request)

    def cut(self, now: float) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Takes off the requests of the next envelope, and those whose turn has come too late for
        a reply; returns both.
        """
        batch: list[PendingRequest] = []
        late: list[PendingRequest] = []
        if not self.due:
            return batch, late
        waiting = self.waiting
        size = 0
        while waiting.count and self.underway < self.window.size and len(batch) < MAX_ITEMS:
            # The first request goes, whatever its size.
            request = waiting.pop(MAX_BYTES - size if batch else None)
            if request is None:
                break
            size += len(request.body)
            request.sent_at = now
            if request.deadline - now < self._least_seconds(request.cost):
                late.append(request)
                continue
            request.underway = True
            self.underway += request.cost
            batch.append(request)
        return batch, late

    def _least_seconds(self, cost: int) -> float:
        """Returns the seconds before its deadline below which a request is not sent any more."""
        # With nothing under way all is sent: so a model that was slow is tried again.
        if not self.underway:
            return LEAST_SECONDS
        rate = self.window.rate
        queued = (self.underway + cost) / rate * _SURE if rate else 0.0
        return max(LEAST_SECONDS, self.window.fastest, queued)

    @property
    def due(self) -> bool:
        """True if a send is worth it now; otherwise more requests are to gather, or more of those
        under way are to be answered.
        """
        waiting = self.waiting
        room = self.window.size - self.underway
        if not waiting.count or room <= 0 or self.sends >= MAX_SENDS:
            return False
        # A window that is nearly full is not filled by single requests.
        if waiting.cost > room and room < self.window.size // 8:
            return False
        # Beside an unconfirmed send only a full envelope goes.
        return not self.sends or min(waiting.count, room) >= MAX_ITEMS or waiting.bytes >= MAX_BYTES

    def land(self, replies: Iterable[RequestReply], now: float) -> bool:
        """Takes in replies of one delivery to requests that are under way, and fits the window to
        them; returns whether to send now.
        """
        landed = []
        for request, reply in replies:
            # A second reply to a request says nothing new.
            if request.underway:
                request.underway = False
                self.underway -= request.cost
                landed.append((request, reply))
        self.window.adjust(landed, self._slots(self.key), now, saturated=self._saturated)
        self._saturated = self.underway + self.waiting.cost > self.window.size
        return self.due

    @property
    def idle(self) -> bool:
        """True if nothing waits or is under way."""
        return not (self.waiting.count or self.underway or self.sends)
