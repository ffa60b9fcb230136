"""Decides whether a request may wait, by the owner's queue policy and the router's limits. Work
that cannot be answered in time is refused now, for the price of a few divisions.

A request that could be sent at once is never refused. So nothing is refused for what is not known,
and a model that was slow, or away, is tried again by whoever comes first. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.router.config import RouterSettings
from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.pending_requests import Ticket
from stellwerk.type.v1 import serving_pb2
from stellwerk.wire.errors import Overloaded

# Why a request is refused, as callers and the metric `stellwerk_rejections` read it.
QUEUE_FULL = "queue_full"
TENANT_SHARE = "tenant_share"
UNREACHABLE = "deadline_unreachable"

# The share of a request's time that queue and model may take. The rest is for what the rate does
# not know: the way to the caller, and calls that take longer than most.
_USABLE = 0.8
# A tenant may hold this many times what is free of a queue: alone nearly all of it, two alike
# nearly half each, and there is always room for one that has nothing waiting (A. Choudhury,
# E. Hahne, "Dynamic Queue Length Thresholds", 1998).
_TENANT_TO_FREE = 8
# Seconds after which a refused caller may come again: while the rate is not known, at least, and at
# most.
_RETRY_UNKNOWN = 1.0
_RETRY_LEAST = 0.05
_RETRY_MOST = 30.0


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The bound and the priorities that a model's owner sets. Made once for a version, used for
    each of its requests.
    """

    # Requests that wait at most; 0 for the router's own limit, which a model can only lower.
    max_queued: int = 0
    # Priorities 1 to `levels` can be asked for; with 0 all requests are equal.
    levels: int = 0
    default_priority: int = 1
    # Seconds; 0 for the platform's default.
    default_timeout: float = 0.0

    @staticmethod
    def of(serving: serving_pb2.ServingPolicy) -> QueuePolicy:
        """Returns the queue policy in a model version's serving policy."""
        levels, default = serving.priority_levels, serving.default_priority
        if not 1 <= default <= levels:
            default = (levels + 1) // 2 or 1
        return QueuePolicy(
            serving.max_queue_size, levels, default, serving.default_timeout_ms / 1000
        )

    def priority(self, asked: int) -> int:
        """Returns the priority of a request that asks for `asked`: the default for 0 and for a
        priority that does not exist.
        """
        return asked if 1 <= asked <= self.levels else self.default_priority


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The router's own limits, the same for all models; their defaults are those of the settings.

    4096 requests of a model are ten seconds' worth of one that answers four hundred a second; a
    tenant may have half of them, over all models.
    """

    max_queued_per_model: int = 4096
    max_queued_per_tenant: int = 2048
    max_queued_bytes: int = 512 * 1024 * 1024
    # Cost with the broker for each slot of the ready runtimes.
    window_per_slot: int = 128
    # Requests by themselves in one envelope. A larger one does not amortise better, and the runtime
    # is to begin while the rest is still looked at here. 32: a fifth more requests of 64 callers
    # for the same CPU than with 128, measured 2026-11.
    items_per_envelope: int = 32
    # Requests and members of groups in one envelope. 128: a member costs a tenth of a request by
    # itself, so it does not keep a runtime waiting, and a group that is not cut costs less.
    members_per_envelope: int = 128

    @staticmethod
    def of(settings: RouterSettings) -> AdmissionLimits:
        """Returns the limits that the settings set."""
        return AdmissionLimits(
            settings.max_queued_per_model,
            settings.max_queued_per_tenant,
            settings.max_queued_bytes,
            settings.window_per_slot,
        )


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """A queue as a new request finds it."""

    waiting: FairQueue
    backlog: Backlog
    # Cost that is with the broker, and the cost that may be.
    underway: int
    window: int
    # Cost per second, and seconds of the fastest recent reply; 0 while they are not known.
    rate: float
    fastest: float
    # Members of the request's group, and their bytes, that may wait and are not in the queue yet.
    joined: int = 0
    joined_bytes: int = 0

    def seconds(self, cost: float) -> float:
        """Returns the time to answer `cost`, a guess while the rate is not known."""
        return cost / self.rate if self.rate else _RETRY_UNKNOWN

    def ahead(self, ticket: Ticket, cost: int) -> int:
        """Returns the cost that is sent before `ticket`, of this cost, at most."""
        return self.waiting.ahead(ticket.priority, ticket.tenant, cost, self.joined)


def check(
    load: QueueLoad,
    limits: AdmissionLimits,
    policy: QueuePolicy,
    ticket: Ticket,
    cost: int,
    seconds: float,
) -> None:
    """Raises Overloaded unless a request that costs `cost` and has `seconds` left may wait in the
    queue: `ticket`, or the next member of it, if it is a group.
    """
    beyond = load.underway + load.waiting.cost + load.joined + cost - load.window
    if beyond <= 0:
        return
    most = min(policy.max_queued or limits.max_queued_per_model, limits.max_queued_per_model)
    waiting = min(load.waiting.count + load.joined, beyond - cost)
    _check_room(load, limits, waiting, most)
    _check_share(load, limits, ticket, cost, waiting, most)
    _check_deadline(load, ticket, cost, seconds)


def _check_room(load: QueueLoad, limits: AdmissionLimits, waiting: int, most: int) -> None:
    if waiting >= most:
        text = f"{waiting} requests wait for this model already, no more are taken"
    elif (held := load.backlog.bytes + load.joined_bytes) >= limits.max_queued_bytes:
        text = f"the requests that wait hold {held} bytes, no more are taken"
    else:
        return
    raise _refusal(QUEUE_FULL, text, load.seconds(load.waiting.cost + load.joined))


def _check_share(
    load: QueueLoad, limits: AdmissionLimits, ticket: Ticket, cost: int, waiting: int, most: int
) -> None:
    of_tenant = load.backlog.tenants[ticket.tenant] + load.joined
    # What the window has room for goes out in this turn and takes nobody's place.
    here = min(load.waiting.of_tenant(ticket.tenant) + load.joined, waiting)
    if of_tenant >= limits.max_queued_per_tenant or here > _TENANT_TO_FREE * (most - waiting):
        text = f"{of_tenant} of your requests wait already, your share"
        raise _refusal(TENANT_SHARE, text, load.seconds(load.ahead(ticket, cost)))


def _check_deadline(load: QueueLoad, ticket: Ticket, cost: int, seconds: float) -> None:
    if not load.rate:
        return
    before = min(load.underway, load.window) + load.ahead(ticket, cost)
    needed = max(load.seconds(before + cost), load.fastest)
    usable = seconds * _USABLE
    if needed > usable:
        text = (
            f"an answer would take about {needed:.2f} s, longer than the {seconds:.2f} s there are"
        )
        raise _refusal(UNREACHABLE, text, needed - usable)


def _refusal(detail: str, text: str, seconds: float) -> Overloaded:
    seconds = min(max(seconds, _RETRY_LEAST), _RETRY_MOST)
    return Overloaded(
        f"{text}; try again in {seconds:.2g} s",
        retry_after_ms=int(seconds * 1000),
        reason_detail=detail,
    )


def hopeless(left: float) -> Overloaded:
    """Returns the refusal of a request whose turn to be sent comes `left` seconds before its
    deadline, too late for a reply.
    """
    text = f"the request's turn came {left:.3f} s before its deadline"
    return _refusal(UNREACHABLE, text, _RETRY_LEAST)
