"""The order in which waiting requests are sent: by priority, and within a priority fairly between
tenants.

Within a priority each tenant has a queue of its own, first in, first out. Start-time fair queueing
chooses between the tenants: a tenant's next request starts, in virtual time, where its last one
finished or where the service is now, whichever is later. The earliest start goes first. Unlike
round robin with a quantum it is fair to within one request, whatever requests cost. So a single
request of a tenant never waits behind another's backlog. After P. Goyal, H. M. Vin and H. Cheng,
"Start-time Fair Queueing" (SIGCOMM 1996). Pure.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, OrderedDict

from services.router.queueing.pending_requests import PendingRequest

# Tenants without a waiting request whose finish is remembered, beyond twice those that have one.
_REMEMBERED = 64


class Backlog:
    """The requests that wait in this router, over all models."""

    def __init__(self) -> None:
        self.tenants: Counter[str] = Counter()
        self.bytes = 0

    def add(self, request: PendingRequest) -> None:
        """Counts a request that waits from now on."""
        self.tenants[request.tenant] += 1
        self.bytes += len(request.body)

    def remove(self, request: PendingRequest) -> None:
        """Counts a request that waits no more."""
        self.bytes -= len(request.body)
        self.tenants[request.tenant] -= 1
        if not self.tenants[request.tenant]:
            del self.tenants[request.tenant]


class _Flow:
    """The waiting requests of one tenant at one priority."""

    __slots__ = ("cost", "requests", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        # Ordered: taking a request out of the front or out of the middle costs the same.
        self.requests: OrderedDict[str, PendingRequest] = OrderedDict()
        self.cost = 0


class _Level:
    """The waiting requests of one priority."""

    def __init__(self) -> None:
        self.flows: dict[str, _Flow] = {}
        self.cost = 0
        self.count = 0
        # (start of the flow's next request, arrival, flow). A flow that cancels have emptied stays
        # until its turn.
        self._turns: list[tuple[float, int, _Flow]] = []
        self._finished: dict[str, float] = {}
        self._now = 0.0
        self._arrivals = 0

    def push(self, request: PendingRequest) -> None:
        flow = self.flows.get(request.tenant)
        if flow is None:
            flow = self.flows[request.tenant] = _Flow(request.tenant)
            start = max(self._now, self._finished.pop(request.tenant, 0.0))
            self._arrivals += 1
            heapq.heappush(self._turns, (start, self._arrivals, flow))
        flow.requests[request.id] = request
        flow.cost += request.cost
        self.cost += request.cost
        self.count += 1

    def head(self) -> PendingRequest:
        """Returns the next request; there must be one."""
        while not self._turns[0][2].requests:
            start, _, flow = heapq.heappop(self._turns)
            self._retire(flow, start)
        return next(iter(self._turns[0][2].requests.values()))

    def pop(self) -> PendingRequest:
        """Takes out and returns the request that `head` returned."""
        start, _, flow = self._turns[0]
        _, request = flow.requests.popitem(last=False)
        self._take(flow, request)
        self._now = start
        finish = start + request.cost
        if flow.requests:
            self._arrivals += 1
            heapq.heapreplace(self._turns, (finish, self._arrivals, flow))
        else:
            heapq.heappop(self._turns)
            self._retire(flow, finish)
        return request

    def remove(self, request: PendingRequest) -> None:
        flow = self.flows[request.tenant]
        del flow.requests[request.id]
        self._take(flow, request)

    def _take(self, flow: _Flow, request: PendingRequest) -> None:
        flow.cost -= request.cost
        self.cost -= request.cost
        self.count -= 1

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
        self.cost = 0
        self.bytes = 0

    def push(self, request: PendingRequest) -> None:
        """Adds a request."""
        level = self._levels.get(request.priority)
        if level is None:
            level = self._levels[request.priority] = _Level()
            insort(self._order, request.priority)
        level.push(request)
        self.count += 1
        self.cost += request.cost
        self.bytes += len(request.body)
        self._backlog.add(request)

    def pop(self, most_bytes: int | None = None) -> PendingRequest | None:
        """Takes out and returns the next request; there must be one. Returns None, and takes out
        nothing, if its body has more than `most_bytes`.
        """
        level = self._levels[self._order[0]]
        head = level.head()
        if most_bytes is not None and len(head.body) > most_bytes:
            return None
        level.pop()
        self._took(head, level)
        return head

    def remove(self, request: PendingRequest) -> None:
        """Takes out a request that waits here."""
        level = self._levels[request.priority]
        level.remove(request)
        self._took(request, level)

    def _took(self, request: PendingRequest, level: _Level) -> None:
        self.count -= 1
        self.cost -= request.cost
        self.bytes -= len(request.body)
        self._backlog.remove(request)
        if not level.count:
            del self._levels[request.priority]
            self._order.remove(request.priority)

    def of_tenant(self, tenant: str) -> int:
        """Returns the number of requests of one tenant."""
        flows = (level.flows.get(tenant) for level in self._levels.values())
        return sum(len(flow.requests) for flow in flows if flow is not None)

    def ahead(self, priority: int, tenant: str, cost: int) -> int:
        """Returns the cost that is sent before a request which is added now, at most: all of higher
        priority, and of its own priority as much of every other tenant's as of its own tenant's.
        """
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
