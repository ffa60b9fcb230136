"""Whether a request may wait. What cannot be answered in time is refused now, for the price of a
few divisions, instead of being worked on for nobody. Pure.

A request that could be sent at once is never refused: so nothing is refused for what is not known,
and a model that was slow, or away, is tried again by whoever comes first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from services.router.config import RouterSettings
from services.router.queueing.fair_queue import FairQueue
from services.router.queueing.pending_requests import Ticket
from services.router.queueing.queue_policy import QueuePolicy
from services.router.queueing.service_rate import Speed
from stellwerk.wire.errors import Overloaded

QUEUE_FULL, TENANT_SHARE, UNREACHABLE = "queue_full", "tenant_share", "deadline_unreachable"

# The rest of the deadline is for what the rate does not know: the way to the caller, calls that
# take longer than most.
_USABLE = 0.8
# A tenant may hold so many times what is free of a queue: alone nearly all of it, two alike nearly
# half each, and there is always room for one that has nothing waiting (A. Choudhury, E. Hahne,
# "Dynamic Queue Length Thresholds", 1998).
_TENANT_TO_FREE = 8
_RETRY_UNKNOWN, _RETRY_LEAST, _RETRY_MOST = 1.0, 0.05, 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The router's own bounds."""

    # Requests: what can be answered within a caller's patience, and of one tenant, over all models,
    # half of it.
    max_queued_per_model: int = 4096
    max_queued_per_tenant: int = 2048
    max_queued_bytes: int = 512 * 1024 * 1024
    # Cost with the broker for each slot of the ready runtimes.
    window_per_slot: int = 128

    @staticmethod
    def of(settings: RouterSettings) -> Limits:
        return Limits(
            settings.max_queued_per_model,
            settings.max_queued_per_tenant,
            settings.max_queued_bytes,
            settings.window_per_slot,
        )


class Backlog:
    """What waits in this router, over all models."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tenants: Counter[str] = Counter()
        self.bytes = 0

    def add(self, ticket: Ticket) -> None:
        self.tenants[ticket.tenant] += 1
        self.bytes += len(ticket.body)

    def remove(self, ticket: Ticket) -> None:
        self.bytes -= len(ticket.body)
        self.tenants[ticket.tenant] -= 1
        if not self.tenants[ticket.tenant]:
            del self.tenants[ticket.tenant]


@dataclass(frozen=True, slots=True)
class Load:
    """A queue as a new request finds it."""

    queue: FairQueue
    backlog: Backlog
    speed: Speed
    # Cost that is with the broker, and how much of it there may be.
    underway: int
    window: int
    slots: int


def check(
    load: Load, policy: QueuePolicy, tenant: str, priority: int, cost: int, seconds: float
) -> None:
    """Raises Overloaded unless a request may wait that has so many seconds left."""
    queue, backlog = load.queue, load.backlog
    beyond = load.underway + queue.cost + cost - load.window
    if beyond <= 0:
        return
    rate = load.speed.rate(load.slots)
    limits = backlog.limits
    most = min(policy.max_queued or limits.max_queued_per_model, limits.max_queued_per_model)
    waiting = min(queue.count, beyond - cost)
    if waiting >= most:
        drained = queue.cost / rate if rate else _RETRY_UNKNOWN
        raise _refusal(
            QUEUE_FULL,
            f"{waiting} requests wait for this model already, no more are taken",
            drained,
        )
    if backlog.bytes >= limits.max_queued_bytes:
        drained = queue.cost / rate if rate else _RETRY_UNKNOWN
        raise _refusal(
            QUEUE_FULL,
            f"the requests that wait hold {backlog.bytes} bytes, no more are taken",
            drained,
        )
    own = queue.of_tenant(tenant)
    free = most - waiting
    if backlog.tenants[tenant] >= limits.max_queued_per_tenant or own > _TENANT_TO_FREE * free:
        drained = load.queue.ahead(priority, tenant, cost) / rate if rate else _RETRY_UNKNOWN
        raise _refusal(
            TENANT_SHARE,
            f"{backlog.tenants[tenant]} of your requests wait already, your share",
            drained,
        )
    if rate:
        needed = (
            min(load.underway, load.window) + queue.ahead(priority, tenant, cost) + cost
        ) / rate
        needed = max(needed, load.speed.fastest)
        if needed > seconds * _USABLE:
            text = (
                f"an answer would take about {needed:.2f} s, longer than the {seconds:.2f} s"
                " there are"
            )
            raise _refusal(UNREACHABLE, text, needed - seconds * _USABLE)


def _refusal(detail: str, text: str, seconds: float) -> Overloaded:
    seconds = min(max(seconds, _RETRY_LEAST), _RETRY_MOST)
    return Overloaded(
        f"{text}; try again in {seconds:.2g} s",
        retry_after_ms=int(seconds * 1000),
        reason_detail=detail,
    )


def hopeless(cause: str) -> Overloaded:
    """The refusal of a request whose turn came too late."""
    return _refusal(UNREACHABLE, cause, _RETRY_LEAST)
