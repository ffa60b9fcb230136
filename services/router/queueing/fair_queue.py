"""The order in which waiting requests are sent: by priority, and within a priority fairly between
tenants.

Within a priority each tenant has a queue of its own, first in, first out. Start-time fair queueing
chooses between the tenants: a tenant's next request starts, in virtual time, where its last one
finished or where the service is now, whichever is later. The earliest start goes first. Unlike
round robin with a quantum it is fair to within one request, whatever requests cost. So a single
request of a tenant never waits behind another's backlog. After P. Goyal, H. M. Vin and H. Cheng,
"Start-time Fair Queueing" (SIGCOMM 1996). Pure.

A group of requests has one place in its tenant's queue. Its members go in turn with the other
tenants' requests, as if they had been added one by one.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Sequence

from services.router.queueing.members import PendingGroup
from services.router.queueing.pending_requests import PendingRequest, Ticket

# Tenants without a waiting request whose finish is remembered, beyond twice those that have one.
_REMEMBERED = 64


class Backlog:
    """The requests that wait in this router, over all models."""

    def __init__(self) -> None:
        self.tenants: Counter[str] = Counter()
        self.bytes = 0

    def add(self, tenant: str, count: int, size: int) -> None:
        """Counts requests of a tenant, worth `size` bytes, that wait from now on."""
        self.tenants[tenant] += count
        self.bytes += size

    def remove(self, tenant: str, count: int, size: int) -> None:
        """Counts requests of a tenant, worth `size` bytes, that wait no more."""
        self.bytes -= size
        self.tenants[tenant] -= count
        if not self.tenants[tenant]:
            del self.tenants[tenant]


class _Flow:
    """The waiting requests of one tenant at one priority."""

    __slots__ = ("cost", "count", "requests", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        # Ordered: taking a request out of the front or out of the middle costs the same.
        self.requests: OrderedDict[str, Ticket] = OrderedDict()
        self.cost = 0
        self.count = 0


class _Level:
    """The waiting requests of one priority."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.flows: dict[str, _Flow] = {}
        self.cost = 0
        self.count = 0
        # (start of the flow's next request, arrival, flow). A flow that cancels have emptied stays
        # until its turn.
        self._turns: list[tuple[float, int, _Flow]] = []
        self._finished: dict[str, float] = {}
        self._now = 0.0
        self._arrivals = 0

    def push(self, ticket: Ticket) -> None:
        flow = self.flows.get(ticket.tenant)
        if flow is None:
            flow = self.flows[ticket.tenant] = _Flow(ticket.tenant)
            start = max(self._now, self._finished.pop(ticket.tenant, 0.0))
            self._arrivals += 1
            heapq.heappush(self._turns, (start, self._arrivals, flow))
        flow.requests[ticket.id] = ticket
        cost = ticket.cost
        count = ticket.count
        flow.cost += cost
        flow.count += count
        self.cost += cost
        self.count += count

    def head(self) -> Ticket:
        """Returns the next request, or the group of the next one; there must be one."""
        while not self._turns[0][2].requests:
            start, _, flow = heapq.heappop(self._turns)
            self._retire(flow, start)
        return next(iter(self._turns[0][2].requests.values()))

    def pop(self) -> None:
        """Takes out the request that `head` returned."""
        start, _, flow = self._turns[0]
        _, ticket = flow.requests.popitem(last=False)
        cost = ticket.cost
        flow.cost -= cost
        flow.count -= 1
        self.cost -= cost
        self.count -= 1
        self._now = start
        self._turn_over(flow, start + cost)

    def take(self, group: PendingGroup, most: int, *, all_go: bool) -> list[int]:
        """Takes out and returns the first members of the group that `head` returned: `most` of them
        at most, and unless `all_go`, as many as come before another tenant's turn.
        """
        start, _, flow = self._turns[0]
        count = min(most, group.cost)
        # Each member starts where the one before it finished. Of two that start together the one
        # goes first whose tenant has waited longer, which is the other.
        if not all_go and len(self._turns) > 1:
            other = min([turn[0] for turn in self._turns[1:3]])
            count = min(count, max(1, math.ceil(other - start)))
        members = group.take(count)
        self._left(flow, count, count)
        if not group.cost:
            flow.requests.popitem(last=False)
        self._now = start + count - 1
        self._turn_over(flow, start + count)
        return members

    def drop(self, group: PendingGroup, members: Sequence[int]) -> None:
        flow = self.flows[group.tenant]
        group.drop(members)
        self._left(flow, len(members), len(members))
        if not group.cost:
            del flow.requests[group.id]

    def remove(self, ticket: Ticket) -> None:
        flow = self.flows[ticket.tenant]
        del flow.requests[ticket.id]
        self._left(flow, ticket.cost, ticket.count)

    def _left(self, flow: _Flow, cost: int, count: int) -> None:
        flow.cost -= cost
        flow.count -= count
        self.cost -= cost
        self.count -= count

    def _turn_over(self, flow: _Flow, finish: float) -> None:
        """Gives the flow whose turn it was its next turn."""
        if flow.requests:
            self._arrivals += 1
            heapq.heapreplace(self._turns, (finish, self._arrivals, flow))
        else:
            heapq.heappop(self._turns)
            self._retire(flow, finish)

    def _retire(self, flow: _Flow, finish: float) -> None:
        """Drops an empty flow. Its finish is kept while it is ahead of the others: without it the
        tenant could jump the queue.
        """
        del self.flows[flow.tenant]
        self._finished[flow.tenant] = finish
        if len(self._finished) > 2 * len(self.flows) + _REMEMBERED:
            self._finished = {tenant: at for tenant, at in self._finished.items() if at > self._now}


class FairQueue:
    """The requests that wait to be sent to one queue of the broker."""

    def __init__(self, backlog: Backlog) -> None:
        """Counts its requests in `backlog` too."""
        self._backlog = backlog
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []
        self.count = 0
        # Those of the requests that are members of groups.
        self.members = 0
        self.cost = 0
        self.bytes = 0

    def push(self, ticket: Ticket) -> None:
        """Adds a request or a group."""
        level = self._levels.get(ticket.priority)
        if level is None:
            level = self._levels[ticket.priority] = _Level(ticket.priority)
            insort(self._order, ticket.priority)
        level.push(ticket)
        size = ticket.size
        count = ticket.count
        self.count += count
        self.cost += ticket.cost
        self.bytes += size
        if isinstance(ticket, PendingGroup):
            self.members += count
        self._backlog.add(ticket.tenant, count, size)

    def head(self) -> Ticket:
        """Returns the next request, or the group of the next one; there must be one."""
        return self._levels[self._order[0]].head()

    def pop(self, most_bytes: float = math.inf) -> PendingRequest | None:
        """Takes out and returns the next request; there must be one. Returns None, and takes out
        nothing, if it has more than `most_bytes`, or is a member of a group.
        """
        level = self._levels[self._order[0]]
        head = level.head()
        if isinstance(head, PendingGroup) or head.size > most_bytes:
            return None
        level.pop()
        self.count -= 1
        self.cost -= head.cost
        self.bytes -= head.size
        self._backlog.remove(head.tenant, 1, head.size)
        if not level.count:
            self._drop(level)
        return head

    def take(self, group: PendingGroup, most: int, *, all_go: bool = False) -> list[int]:
        """Takes out the first members of the group that `head` returned, and returns their indexes:
        `most` of them at most, and as many as come before another tenant's turn. `all_go`: all that
        waits is taken now, so that the order does not matter.
        """
        level = self._levels[self._order[0]]
        members = level.take(group, most, all_go=all_go)
        count = len(members)
        self._took(group, level, count, count, count * group.work.member_bytes)
        return members

    def drop(self, group: PendingGroup, members: Sequence[int]) -> None:
        """Takes out members of a group that waits here."""
        level = self._levels[group.priority]
        level.drop(group, members)
        count = len(members)
        self._took(group, level, count, count, count * group.work.member_bytes)

    def remove(self, ticket: Ticket) -> None:
        """Takes out a request or a group that waits here."""
        level = self._levels[ticket.priority]
        level.remove(ticket)
        self._took(ticket, level, ticket.cost, ticket.count, ticket.size)

    def _took(self, ticket: Ticket, level: _Level, cost: int, count: int, size: int) -> None:
        self.count -= count
        if isinstance(ticket, PendingGroup):
            self.members -= count
        self.cost -= cost
        self.bytes -= size
        self._backlog.remove(ticket.tenant, count, size)
        if not level.count:
            self._drop(level)

    def _drop(self, level: _Level) -> None:
        del self._levels[level.priority]
        self._order.remove(level.priority)

    def of_tenant(self, tenant: str) -> int:
        """Returns the number of requests of one tenant."""
        flows = (level.flows.get(tenant) for level in self._levels.values())
        return sum(flow.count for flow in flows if flow is not None)

    def ahead(self, priority: int, tenant: str, cost: int, joined: int = 0) -> int:
        """Returns the cost that is sent before a request which is added now, at most: all of higher
        priority, and of its own priority as much of every other tenant's as of its own tenant's.
        `joined`: the cost of requests of its tenant and priority that are added before it.
        """
        before = 0
        for level in self._order:
            if level >= priority:
                break
            before += self._levels[level].cost
        own = self._levels.get(priority)
        if own is None:
            return before + joined
        flow = own.flows.get(tenant)
        backlog = flow.cost if flow is not None else 0
        others = len(own.flows) - (flow is not None)
        of_others = min(own.cost - backlog, others * (backlog + joined + cost))
        return before + backlog + joined + of_others
