"""Queues groups of requests, takes in the replies to their members, and ends members whose fate
differs from the others'. What all members share is done once for the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.router.dispatch.cancellations import Cancellations
from services.router.dispatch.metrics import (
    BROKER_DOWN,
    CANCELLED,
    DEADLINE_PASSED,
    DispatchMetrics,
)
from services.router.queueing.admission import QueuePolicy
from services.router.queueing.members import GroupWork, LandedMembers, PendingGroup
from services.router.queueing.outbound_queue import OutboundQueue
from services.router.queueing.pending_requests import (
    LINGER_SECONDS,
    Outcome,
    PendingRequest,
    PendingRequests,
    RequestReply,
    Ticket,
    tick_of,
)
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import (
    BrokerDown,
    DeadlinePassed,
    Internal,
    InvalidInput,
    ServiceError,
    to_work_error,
)

# Members of a part and their reply.
MembersReply = tuple[LandedMembers, work_pb2.WorkReply]

PAST = "the deadline passed before the request was queued; give the call more time"
_SENT = "no runtime answered before the deadline; give the call more time"
_WAITED = (
    "the deadline passed before the request's turn came; give the call more time or send less at a"
    " time"
)


def expired(ticket: Ticket) -> DeadlinePassed:
    """Returns the error of a request whose deadline has passed."""
    return DeadlinePassed(_SENT if ticket.sent_at else _WAITED)


class GroupDispatch:
    """Keeps the members of groups, of all queues."""

    def __init__(
        self,
        pending: PendingRequests,
        queues: Mapping[str, OutboundQueue],
        metrics: DispatchMetrics,
        cancellations: Cancellations,
    ) -> None:
        """Finds the queue of a serving key in `queues`."""
        self._pending = pending
        self._queues = queues
        self._metrics = metrics
        self._cancellations = cancellations

    def join(self, group: PendingGroup, policy: QueuePolicy, now: float, problem: str) -> bool:
        """Has the members of a new group wait in its queue, and ends those that are refused; all
        are, if the broker has a `problem`. Returns whether any member waits.
        """
        queue = self._queues[group.queue.key]
        if group.deadline <= now:
            deadlines = group.work.deadlines
            gone = [index for index in group.members if deadlines[index] <= now]
            group.drop(gone)
            self._refuse(group, gone, DeadlinePassed(PAST), DEADLINE_PASSED)
        if problem and group.cost:
            gone = group.members
            group.drop(gone)
            self._refuse(group, gone, BrokerDown(f"{problem}; try again shortly"), BROKER_DOWN)
        for indexes, refusal in queue.admit(policy, group, now) if group.cost else ():
            self._refuse(group, indexes, refusal, refusal.metadata["reason_detail"])
        if not group.cost:
            self._pending.forget(group)
            return False
        self._pending.add_group(group)
        queue.waiting.push(group)
        return True

    def _refuse(
        self, group: PendingGroup, members: Sequence[int], error: ServiceError, reason: str
    ) -> None:
        self._metrics.rejected(group.queue.key, reason, len(members))
        self._pending.tell_members(group, members, error)

    def sent(self, group: PendingGroup, members: list[int], now: float) -> PendingGroup:
        """Returns the part that is sent with these members of a group, which were taken out."""
        part = group.sent(members, now)
        if part is not group:
            self._pending.add_part(part)
        return part

    def end(
        self, group: PendingGroup, members: Sequence[int], outcome: Outcome, reason: str
    ) -> None:
        """Ends members that the group does not hold any more, and counts the reason unless it is
        "".
        """
        if reason:
            self._metrics.rejected(group.queue.key, reason, len(members))
        self._pending.end_members(group, members, outcome)

    def fail(
        self, group: PendingGroup, error: ServiceError, reason: str, late: ServiceError, soon: float
    ) -> list[PendingRequest]:
        """Ends the members of a part that could not be sent: with `late`, if their deadline comes
        before `soon`. Returns the requests that others of its members have become.
        """
        separated = self._pending.separated(group)
        rest = group.rest()
        group.queue.leave(group)
        group.close_all()
        deadlines = group.work.deadlines
        gone = [index for index in rest if deadlines[index] < soon]
        failed = [index for index in rest if deadlines[index] >= soon]
        if gone:
            self.end(group, gone, late, DEADLINE_PASSED)
        if failed:
            self.end(group, failed, error, reason)
        return separated

    def expire(self, group: PendingGroup, now: float) -> None:
        """Ends the members of a due group whose deadlines have passed. Those that a runtime may
        still work on go on as requests that nobody waits for.
        """
        last = tick_of(now) - 1
        deadlines = group.work.deadlines
        gone = [index for index in group.rest() if tick_of(deadlines[index]) <= last]
        if gone:
            self._metrics.rejected(group.queue.key, DEADLINE_PASSED, len(gone))
        if gone and group.sent_at:
            for index in gone:
                until = deadlines[index] + LINGER_SECONDS
                self._pending.separate(group, group.members.index(index), until)
            self._pending.tell_members(group, gone, expired(group))
        elif gone:
            self._queues[group.queue.key].waiting.drop(group, gone)
            self._pending.end_members(group, gone, expired(group))
        self._pending.wait_on(group)

    def cancel(self, work: GroupWork, index: int) -> None:
        """Ends a member whose caller went away: one that waits is not sent, and the reply to one
        that was sent is dropped.
        """
        group = next((part for part in work.parts if index in part.rest()), None)
        if group is None:
            return
        self._metrics.rejected(group.queue.key, CANCELLED)
        work.ended(1)
        if group.sent_at:
            position = group.members.index(index)
            # A runtime may work on it already: it counts as under way until its reply or deadline.
            self._pending.separate(group, position)
            self._cancellations.add_member(group.id, position)
        else:
            self._queues[group.queue.key].waiting.drop(group, [index])
            self._pending.end_members(group, [index], None)

    def land(
        self, replies: Iterable[work_pb2.WorkReplyGroup], requests: list[RequestReply]
    ) -> list[MembersReply]:
        """Returns the members that are under way and have their reply now. Adds the replies to
        those that left their groups to `requests`.
        """
        found = []
        for told in replies:
            group = self._pending.group(told.id)
            if group is None or not group.sent_at:
                continue
            if group.separated:
                requests += self._separated(group, told)
            indexes, places = group.land(told.members)
            if not indexes:
                continue
            reply = told.reply
            # A member gets one reply, so none follows.
            reply.more = False
            named = len(told.members) or len(group.members)
            if len(indexes) != named:
                reply = _share(reply, places, named)
            found.append((LandedMembers(group, indexes, len(indexes)), reply))
        return found

    def _separated(
        self, group: PendingGroup, told: work_pb2.WorkReplyGroup
    ) -> Iterator[RequestReply]:
        """Yields the replies to members that left the group: nobody waits for their outputs."""
        for place, position in enumerate(told.members or range(len(group.members))):
            request = self._pending.get(group.member_id(position))
            if request is not None:
                yield request, _without_outputs(told.reply, leads=told.reply.leads and not place)

    def end_landed(self, landed: Iterable[MembersReply]) -> None:
        """Ends the members that `land` returned with their replies."""
        for members, reply in landed:
            late = reply.HasField("error") and reply.error.reason == DeadlinePassed.reason
            self.end(members.group, members.indexes, reply, DEADLINE_PASSED if late else "")


def _share(reply: work_pb2.WorkReply, places: Sequence[int], named: int) -> work_pb2.WorkReply:
    """Returns the reply to the members at these places, of a reply to `named` members."""
    try:
        return columns.pick_reply(reply, places, named)
    except InvalidInput:
        failed = _without_outputs(reply, leads=reply.leads and 0 in places)
        error = Internal("the runtime's answer cannot be shared out among the calls it is for")
        failed.error.CopyFrom(to_work_error(error))
        return failed


def _without_outputs(reply: work_pb2.WorkReply, *, leads: bool) -> work_pb2.WorkReply:
    bare = work_pb2.WorkReply()
    bare.CopyFrom(reply)
    del bare.outputs[:]
    bare.leads = leads
    bare.more = False
    return bare
