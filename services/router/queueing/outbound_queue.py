"""The outbound queue of one serving key: requests that wait here, requests that are with the
broker, and which go next. Pure; time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from services.router.queueing import admission
from services.router.queueing.admission import (
    UNREACHABLE,
    AdmissionLimits,
    QueueLoad,
    QueuePolicy,
)
from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.members import LandedMembers, PendingGroup
from services.router.queueing.pending_requests import PendingRequest, Ticket
from services.router.queueing.send_window import SendWindow
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import Overloaded

# Bytes of one envelope. A larger one does not amortise better.
MAX_BYTES = 1024 * 1024
# Sends that the broker has not confirmed. While there is one, only a full envelope goes, so that
# the requests that gather meanwhile go together.
MAX_SENDS = 8
# Seconds before its deadline below which a request is not sent: it could not even be received.
LEAST_SECONDS = 0.001
# A request is not sent either with less time than this share of what its reply is expected to take.
_SURE = 0.8


# A request, or members of a group, and the reply to them.
LandedReply = tuple[PendingRequest | LandedMembers, work_pb2.WorkReply]
# Members of a group, by their indexes, that end with an error.
Refusal = tuple[list[int], Overloaded]


class Cut:
    """Requests that are taken off a queue for an envelope."""

    __slots__ = ("count", "late", "late_members", "members", "requests", "size")

    def __init__(self) -> None:
        self.requests: list[PendingRequest] = []
        # Groups, and the indexes of their members that go.
        self.members: dict[PendingGroup, list[int]] = {}
        # Requests, and members of groups, whose turn has come too late for a reply.
        self.late: list[PendingRequest] = []
        self.late_members: list[tuple[PendingGroup, int]] = []
        # The number of requests and members that go, and the bytes of all that was taken off.
        self.count = 0
        self.size = 0


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
        try:
            admission.check(self._load(), self._limits, policy, request, request.cost, seconds)
        except Overloaded:
            self._saturated = True
            raise

    def admit(self, policy: QueuePolicy, group: PendingGroup, now: float) -> list[Refusal]:
        """Takes the members out of a new group that may not join, and returns their refusals: those
        that requests by themselves would get, which join one after the other.
        """
        members = group.members
        # Members that the window has room for are never refused.
        joined = max(0, self.window.size - self.underway - self.waiting.cost)
        if joined >= len(members):
            return []
        # The more have joined and the less time is left, the stricter is the check. So if the last
        # member may join with the nearest deadline of all, each of them may.
        if self._refusal(policy, group, len(members) - 1, group.deadline - now) is None:
            return []
        deadlines = group.work.deadlines
        admitted = members[:joined]
        refused: list[Refusal] = []
        last: Overloaded | None = None
        last_deadline = 0.0
        for index in members[joined:]:
            deadline = deadlines[index]
            # As long as no other joins, only the deadline can make a difference.
            if last is None or (
                deadline != last_deadline and last.metadata["reason_detail"] == UNREACHABLE
            ):
                last = self._refusal(policy, group, len(admitted), deadline - now)
                last_deadline = deadline
                if last is None:
                    admitted.append(index)
                    continue
                refused.append(([], last))
            refused[-1][0].append(index)
        if refused:
            self._saturated = True
        group.drop([index for indexes, _ in refused for index in indexes])
        if admitted:
            group.deadline = group.nearest(admitted)
        return refused

    def _refusal(
        self, policy: QueuePolicy, group: PendingGroup, joined: int, seconds: float
    ) -> Overloaded | None:
        """Returns the refusal of a member with `seconds` left if `joined` others join before."""
        try:
            load = self._load(joined, joined * group.work.member_bytes)
            admission.check(load, self._limits, policy, group, 1, seconds)
        except Overloaded as exc:
            # A traceback would keep the group until the collector of cycles comes.
            return exc.with_traceback(None)
        return None

    def _load(self, joined: int = 0, joined_bytes: int = 0) -> QueueLoad:
        window = self.window
        return QueueLoad(
            self.waiting,
            self._backlog,
            self.underway,
            window.size,
            window.rate,
            window.fastest,
            joined,
            joined_bytes,
        )

    def leave(self, ticket: Ticket) -> None:
        """Takes out a request or group that is neither to be sent nor waited for any more."""
        if isinstance(ticket, PendingGroup):
            if ticket.sent_at:
                self.underway -= ticket.cost
            elif ticket.cost:
                self.waiting.remove(ticket)
        elif ticket.underway:
            ticket.underway = False
            self.underway -= ticket.cost
        elif not ticket.sent_at:
            self.waiting.remove(ticket)

    def cut(self, now: float) -> Cut:
        """Takes off the requests of the next envelope, and those for which it is too late."""
        cut = Cut()
        if not self.due:
            return cut
        waiting = self.waiting
        limits = self._limits
        window = self.window.size
        while waiting.count and self.underway < window and cut.count < limits.members_per_envelope:
            # The first request goes, whatever its size.
            size = MAX_BYTES - cut.size if cut.count else math.inf
            full = len(cut.requests) >= limits.items_per_envelope
            request = waiting.pop(-1 if full else size)
            if request is None:
                group = waiting.head()
                if not isinstance(group, PendingGroup) or group.work.member_bytes > size:
                    break
                self._cut_members(group, cut, now)
                continue
            cut.size += request.size
            request.sent_at = now
            if request.deadline - now < self._least_seconds(request.cost):
                cut.late.append(request)
                continue
            request.underway = True
            self.underway += request.cost
            cut.requests.append(request)
            cut.count += 1
        return cut

    def _cut_members(self, group: PendingGroup, cut: Cut, now: float) -> None:
        """Takes off the first members of a group: as many as there is room for, and as have their
        turn.
        """
        waiting = self.waiting
        each = group.work.member_bytes
        room = self.window.size - self.underway
        count = self._limits.members_per_envelope - cut.count
        items = self._limits.items_per_envelope - len(cut.requests)
        size = MAX_BYTES - cut.size
        most = min(room, count, max(1, size // each))
        # The last member needs the most time. If one may be late, they are looked at one by one.
        if group.deadline - now < self._least_seconds(1, beside=most - 1):
            most = 1
        all_go = waiting.cost <= room and waiting.count <= count and waiting.bytes <= size
        all_go = all_go and waiting.count - waiting.members <= items
        taken = waiting.take(group, most, all_go=all_go)
        cut.size += each * len(taken)
        if most == 1 and group.work.deadlines[taken[0]] - now < self._least_seconds(1):
            cut.late_members.append((group, taken[0]))
            return
        self.underway += len(taken)
        cut.count += len(taken)
        # Members that others went between are still sent as one group.
        known = cut.members.setdefault(group, taken)
        if known is not taken:
            known += taken

    def _least_seconds(self, cost: int, beside: int = 0) -> float:
        """Returns the seconds before its deadline below which a request is not sent any more, if
        `beside` cost is sent before it.
        """
        underway = self.underway + beside
        # With nothing under way all is sent: so a model that was slow is tried again.
        if not underway:
            return LEAST_SECONDS
        rate = self.window.rate
        queued = (underway + cost) / rate * _SURE if rate else 0.0
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
        if not self.sends:
            return True
        # Beside an unconfirmed send only a full envelope goes.
        full = min(waiting.count, room) >= self._limits.items_per_envelope
        return full or waiting.bytes >= MAX_BYTES

    def land(self, replies: Iterable[LandedReply], now: float) -> bool:
        """Takes in replies of one delivery to requests that are under way, and fits the window to
        them; returns whether to send now.
        """
        landed = []
        for requests, reply in replies:
            # A second reply to a request says nothing new.
            if requests.underway:
                requests.underway = False
                self.underway -= requests.cost * requests.count
                landed.append((requests, reply))
        self.window.adjust(landed, self._slots(self.key), now, saturated=self._saturated)
        self._saturated = self.underway + self.waiting.cost > self.window.size
        return self.due

    @property
    def idle(self) -> bool:
        """True if nothing waits or is under way."""
        return not (self.waiting.count or self.underway or self.sends)
