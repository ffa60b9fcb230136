"""Where models run: `plan(demands, fleet) -> actions`. A pure function; somebody else carries the
actions out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.router.fleet.registry import FAILED, LOADING, ORDER_SECONDS, READY, Member
from services.router.fleet.requirements import unmet
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire import errors
from stellwerk.wire.errors import NoRuntimeAvailable, RequirementUnmet, ServiceError

# One more replica is asked for when each slot has this many requests waiting for it.
PENDING_PER_SLOT = 16


@dataclass(slots=True)
class Demand:
    """That a key be served: asked for by a request, kept until nobody has used it for a while."""

    key: str
    model_version: str
    format: str
    requires: requirements_pb2.Requirements
    last_used: float
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Serve:
    """Tell the runtime to serve the demand."""

    instance: str
    demand: Demand


@dataclass(frozen=True, slots=True)
class StopServing:
    """Tell the runtime to let the key go."""

    instance: str
    key: str


Action = Serve | StopServing


def candidates(demand: Demand, members: Iterable[Member]) -> list[Member]:
    """The members that could serve the demand now."""
    return [
        member
        for member in members
        if member.usable
        and demand.format in member.runtime.formats
        and not unmet(demand.requires, member.runtime)
    ]


def explain(demand: Demand, members: Iterable[Member]) -> ServiceError:
    """Why nobody can serve the demand, as the error to be raised. To be called when `candidates` is
    empty.
    """
    usable = [member.runtime for member in members if member.usable]
    if not usable:
        return NoRuntimeAvailable("no runtime is attached to the router; start one and try again")
    with_format = [runtime for runtime in usable if demand.format in runtime.formats]
    if not with_format:
        return RequirementUnmet(
            f"no runtime can load the format {demand.format}; attach one that has its framework"
            " installed and allowed",
            format=demand.format,
        )
    lacking = [unmet(demand.requires, runtime) for runtime in with_format]
    nobody_has = [what for what in lacking[0] if all(what in others for others in lacking)]
    what = " and ".join(nobody_has) or "all of " + " and ".join(
        sorted({part for parts in lacking for part in parts})
    )
    return RequirementUnmet(
        f"no runtime meets the requirement {what}; attach one that does or ask for less",
        requirement=what,
    )


def plan(
    demands: Mapping[str, Demand], members: Iterable[Member], now: float, idle_seconds: float
) -> list[Action]:
    """What must change so that every demand is served, by more replicas where requests pile up, and
    nothing idles.
    """
    members = list(members)
    actions: list[Action] = []
    for demand in demands.values():
        if now - demand.last_used < idle_seconds or demand.pending:
            actions += _serve_more(demand, members, now)
    for member in members:
        for model in member.runtime.models:
            wanted = demands.get(model.key)
            if wanted is None or (now - wanted.last_used >= idle_seconds and not wanted.pending):
                actions.append(StopServing(member.instance, model.key))
    return actions


def _serve_more(demand: Demand, members: list[Member], now: float) -> list[Action]:
    able = candidates(demand, members)
    serving = [member for member in able if _serves(member, demand.key, now)]
    slots = sum(max(1, member.runtime.slots) for member in serving) or 1
    wanted = max(
        1, len(serving), math.ceil(demand.pending / (slots * PENDING_PER_SLOT)) if serving else 1
    )
    free = [
        member
        for member in able
        if member not in serving and now >= member.retry_at.get(demand.key, 0.0)
    ]
    free.sort(key=_load)
    return [Serve(member.instance, demand) for member in free[: max(0, wanted - len(serving))]]


def _serves(member: Member, key: str, now: float) -> bool:
    if now - member.ordered.get(key, -math.inf) < ORDER_SECONDS:
        return True
    model = member.served(key)
    return model is not None and model.state in (READY, LOADING)


def failure(demand: Demand, members: Iterable[Member]) -> ServiceError | None:
    """Why nobody serves the demand although some tried: what they reported, None while one may
    still succeed.
    """
    found: ServiceError | None = None
    for member in candidates(demand, members):
        model = member.served(demand.key)
        if demand.key in member.ordered or (model is not None and model.state != FAILED):
            return None
        if model is None:
            continue
        code = errors.CODE_BY_NUMBER.get(model.error_code, errors.Internal.code)
        found = errors.rebuild(code, model.error_reason, model.error)
    return found


def _load(member: Member) -> tuple[float, int, str]:
    """The least busy first, then the one with the fewest models."""
    runtime = member.runtime
    return runtime.in_flight / max(1, runtime.slots), len(runtime.models), runtime.name
