"""Groups of requests of one form and one tenant that wait, travel and are answered together.

Each request is a member and keeps its own deadline, caller and end. A group is cut into parts where
a limit or another tenant's turn demands it, and each part is sent under an id of its own. A member
whose fate differs from the others' leaves its group. Pure; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import ServiceError

# Called with the indexes of members and the outcome that ends all of them. The outputs of a reply
# hold the data of these members, end to end, in the order of the indexes.
MembersHandler = Callable[[Sequence[int], work_pb2.WorkReply | ServiceError], None]


class RequestQueue(Protocol):
    """The queue that a request or group waits in, or is counted as under way in."""

    @property
    def key(self) -> str: ...

    def leave(self, ticket: Any, /) -> None:
        """Takes out a request or group that is neither to be sent nor waited for any more."""
        ...


@dataclass(slots=True, eq=False)
class GroupWork:
    """Holds the work of a group's members, by their indexes from 0; its parts share it."""

    # The work of all members, as in wire.columns, without id and timeout.
    form: work_pb2.WorkItem
    # When each member's caller stops waiting, in seconds of the clock.
    deadlines: list[float]
    # One for each member, or none.
    request_ids: Sequence[str]
    traceparents: Sequence[str]
    on_reply: MembersHandler
    # Bytes that each member counts as while it waits; set before the group waits.
    member_bytes: int = 0
    # The group and the parts that were cut off it, as long as a member of them has not ended.
    parts: list[PendingGroup] = field(default_factory=list)
    # Parts that were cut off: their ids count on from here.
    cuts: int = 0
    # Members that have not ended.
    left: int = 0

    def ended(self, count: int) -> None:
        """Counts members that have ended. With the last one goes the handler: it refers to the
        calls that refer to this work, and nothing else would free them at once.
        """
        self.left -= count
        if self.left <= 0:
            self.on_reply = _nobody

    def prepare(self, count: int, priority: int, longest: float) -> None:
        """Sets the number of members that end by it and the priority that they are sent with, and
        brings deadlines down to `longest`. The form does not have what is each member's own.
        """
        self.left = count
        self.form.priority = priority
        self.form.id = ""
        self.form.timeout_ms = 0
        self.shorten(longest)

    def shorten(self, longest: float) -> None:
        """Brings deadlines down to `longest`."""
        if max(self.deadlines) > longest:
            self.deadlines = [min(deadline, longest) for deadline in self.deadlines]

    def form_of(self, members: Sequence[int]) -> work_pb2.WorkItem:
        """Returns the form of a group of these members alone."""
        count = len(self.deadlines)
        return self.form if len(members) == count else columns.pick(self.form, members, count)


def _nobody(members: Sequence[int], outcome: work_pb2.WorkReply | ServiceError) -> None:
    """Takes the outcome of members that have all ended."""


class PendingGroup:
    """A part of a group until the last of its members ends: members that wait to be sent, or
    members that were sent as one group.
    """

    __slots__ = (
        "cost",
        "deadline",
        "id",
        "members",
        "open",
        "priority",
        "queue",
        "sent_at",
        "separated",
        "tenant",
        "work",
    )

    def __init__(
        self,
        id: str,
        queue: RequestQueue,
        work: GroupWork,
        members: list[int],
        tenant: str,
    ) -> None:
        """Holds the members with these indexes, at least one, in rising order."""
        self.id = id
        self.queue = queue
        self.work = work
        # Indexes of the members that wait; once it is sent, of all members by their positions.
        self.members = members
        self.tenant = tenant
        self.priority = work.form.priority
        # The number of members that have not ended. Each costs 1.
        self.cost = len(members)
        # The nearest of the members' deadlines.
        self.deadline = self.nearest(members)
        # When it was sent; 0 while it waits.
        self.sent_at = 0.0
        # Positions of the members that are under way; None for all of them.
        self.open: dict[int, None] | None = None
        # Positions of the members that left to end by themselves.
        self.separated: list[int] = []
        work.parts.append(self)

    @property
    def count(self) -> int:
        """The number of requests that it stands for."""
        return self.cost

    @property
    def size(self) -> int:
        """The bytes that its members count as."""
        return self.cost * self.work.member_bytes

    def member_id(self, position: int) -> str:
        """Returns the id of the request that a member becomes which leaves the part."""
        return f"{self.id}/{position}"

    def nearest(self, members: Sequence[int]) -> float:
        """Returns the nearest deadline of these members."""
        deadlines = self.work.deadlines
        if len(members) == len(deadlines):
            return min(deadlines)
        return min([deadlines[index] for index in members])

    def rest(self) -> list[int]:
        """Returns the indexes of the members that have not ended."""
        if self.open is None:
            return self.members
        return [self.members[position] for position in self.open]

    def take(self, count: int) -> list[int]:
        """Takes the first `count` members out and returns their indexes."""
        taken = self.members[:count]
        del self.members[:count]
        self.cost -= count
        return taken

    def drop(self, gone: Sequence[int]) -> None:
        """Takes out members that wait, given by their indexes."""
        lost = set(gone)
        self.members = [index for index in self.members if index not in lost]
        self.cost = len(self.members)

    def sent(self, members: list[int], now: float) -> PendingGroup:
        """Returns the part that is sent with these members, which were taken out: the group itself
        if no other member waits.
        """
        part = self
        if self.members:
            work = self.work
            work.cuts += 1
            id = f"{self.id}+{work.cuts}"
            part = PendingGroup(id, self.queue, work, members, self.tenant)
        part.members = members
        part.cost = len(members)
        part.sent_at = now
        return part

    def close(self, position: int) -> None:
        """Ends the part's wait for a member that is under way."""
        if self.open is None:
            self.open = dict.fromkeys(range(len(self.members)))
        del self.open[position]
        self.cost -= 1

    def close_all(self) -> None:
        """Ends the wait for all members."""
        self.open = {}
        self.cost = 0

    def land(self, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ends the wait for the members at these positions, for all if there are none; returns the
        indexes of those that were under way, and their places in the reply.
        """
        count = len(self.members)
        if self.open is None:
            if not positions:
                self.close_all()
                return self.members, list(range(count))
            self.open = dict.fromkeys(range(count))
        landed: list[int] = []
        places: list[int] = []
        for place, position in enumerate(positions or range(count)):
            if position in self.open:
                del self.open[position]
                landed.append(self.members[position])
                places.append(place)
        self.cost = len(self.open)
        return landed, places


@dataclass(slots=True)
class LandedMembers:
    """Members of a part whose reply has come."""

    group: PendingGroup
    indexes: Sequence[int]
    count: int
    # They are still counted in their queue as under way.
    underway: bool = True
    # What each of them costs.
    cost: ClassVar[int] = 1

    @property
    def queue(self) -> RequestQueue:
        """The queue that they are under way in."""
        return self.group.queue

    @property
    def sent_at(self) -> float:
        """The time at which they were sent."""
        return self.group.sent_at
