"""The order in which waiting requests are sent: by priority, and within a priority fairly between
tenants.

Within a priority each tenant has a queue of its own, first in, first out. Start-time fair queueing
chooses between them: a tenant's next request starts, in virtual time, where its last one finished
or where the service is now, whichever is later, and the earliest start goes first. Unlike round
robin with a quantum it is fair to within one request whatever requests cost, so that a single
request of a tenant never waits behind another's backlog. After P. Goyal, H. M. Vin and H. Cheng,
"Start-time Fair Queueing" (SIGCOMM 1996).
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict

from services.router.queueing.pending_requests import Ticket

# So many tenants that have nothing waiting are remembered beyond twice those that have.
_REMEMBERED = 64


class _Flow:
    """What one tenant has waiting at one priority."""

    __slots__ = ("cost", "tenant", "tickets")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        # Ordered, for taking out of the front and out of the middle at the same price.
        self.tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.cost = 0


class _Level:
    """What waits at one priority."""

    def __init__(self) -> None:
        self.flows: dict[str, _Flow] = {}
        self.cost = 0
        self.count = 0
        # (start of the flow's next ticket, arrival, flow); a flow emptied by cancels stays until
        # its turn.
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
        flow.tickets[ticket.id] = ticket
        flow.cost += ticket.cost
        self.cost += ticket.cost
        self.count += 1

    def head(self) -> Ticket:
        """The next ticket; there must be one."""
        while not self._turns[0][2].tickets:
            start, _, flow = heapq.heappop(self._turns)
            self._retire(flow, start)
        return next(iter(self._turns[0][2].tickets.values()))

    def pop(self) -> Ticket:
        """Takes out what `head` returned."""
        start, _, flow = self._turns[0]
        _, ticket = flow.tickets.popitem(last=False)
        self._take(flow, ticket)
        self._now = start
        finish = start + ticket.cost
        if flow.tickets:
            self._arrivals += 1
            heapq.heapreplace(self._turns, (finish, self._arrivals, flow))
        else:
            heapq.heappop(self._turns)
            self._retire(flow, finish)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        flow = self.flows[ticket.tenant]
        del flow.tickets[ticket.id]
        self._take(flow, ticket)

    def _take(self, flow: _Flow, ticket: Ticket) -> None:
        flow.cost -= ticket.cost
        self.cost -= ticket.cost
        self.count -= 1

    def _retire(self, flow: _Flow, finish: float) -> None:
        """A flow is empty. Where it finished is kept while that is ahead of the others, or it could
        jump the queue.
        """
        del self.flows[flow.tenant]
        self._finished[flow.tenant] = finish
        if len(self._finished) > 2 * len(self.flows) + _REMEMBERED:
            self._finished = {tenant: at for tenant, at in self._finished.items() if at > self._now}


class FairQueue:
    """All that waits for one queue of the broker."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []
        self.count = 0
        self.cost = 0
        self.bytes = 0

    def push(self, ticket: Ticket) -> None:
        level = self._levels.get(ticket.priority)
        if level is None:
            level = self._levels[ticket.priority] = _Level()
            insort(self._order, ticket.priority)
        level.push(ticket)
        self.count += 1
        self.cost += ticket.cost
        self.bytes += len(ticket.body)

    def head(self) -> Ticket:
        """The next ticket; there must be one."""
        return self._levels[self._order[0]].head()

    def pop(self) -> Ticket:
        """Takes out what `head` returned."""
        level = self._levels[self._order[0]]
        ticket = level.pop()
        self._took(ticket, level)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Takes out a ticket that waits."""
        level = self._levels[ticket.priority]
        level.remove(ticket)
        self._took(ticket, level)

    def _took(self, ticket: Ticket, level: _Level) -> None:
        self.count -= 1
        self.cost -= ticket.cost
        self.bytes -= len(ticket.body)
        if not level.count:
            del self._levels[ticket.priority]
            self._order.remove(ticket.priority)

    def of_tenant(self, tenant: str) -> int:
        """Tickets of one tenant."""
        flows = (level.flows.get(tenant) for level in self._levels.values())
        return sum(len(flow.tickets) for flow in flows if flow is not None)

    def ahead(self, priority: int, tenant: str, cost: int) -> int:
        """What is sent before a ticket that came now, at most: all of higher priority, and of its
        own priority as much of every other tenant's as of its own."""
        before = 0
        for level in self._order:
            if level >= priority:
                break
            before += self._levels[level].cost
        own = self._levels.get(priority)
        if own is None:
            return before
        flow = own.flows.get(tenant)
        backlog = flow.cost if flow is not None else 0
        others = len(own.flows) - (flow is not None)
        return before + backlog + min(own.cost - backlog, others * (backlog + cost))
