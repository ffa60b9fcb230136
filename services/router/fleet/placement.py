"""Plans where models run: `plan(desired, members) -> actions`. Pure; the reconciler carries the
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

# Pending requests for each slot of the runtimes that serve a model, above which one more runtime is
# to serve it.
PENDING_PER_SLOT = 16


@dataclass(slots=True)
class DesiredReplica:
    """A model version that is to be served under some requirements, under the key of both.

    A request makes it, and the reconciler keeps it until nobody has used it for a while.
    """

    key: str
    model_version: str
    # "" for a version that a router before this one had served.
    format: str
    requires: requirements_pb2.Requirements
    # In time.monotonic().
    last_used: float
    # Requests that wait for a reply.
    pending: int = 0
    # Whether the reconciler keeps it.
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Serve:
    """Tells a runtime to serve a replica."""

    instance: str
    replica: DesiredReplica


@dataclass(frozen=True, slots=True)
class StopServing:
    """Tells a runtime to let a key go."""

    instance: str
    key: str


Action = Serve | StopServing


def candidates(replica: DesiredReplica, members: Iterable[Member]) -> list[Member]:
    """Returns the members that could serve the replica now."""
    return [
        member
        for member in members
        if member.usable
        and replica.format in member.runtime.formats
        and not unmet(replica.requires, member.runtime)
    ]


def explain(replica: DesiredReplica, members: Iterable[Member]) -> ServiceError:
    """Returns the error that says why no member can serve the replica, for when `candidates` is
    empty.
    """
    usable = [member.runtime for member in members if member.usable]
    if not usable:
        return NoRuntimeAvailable("no runtime is attached to the router; start one and try again")
    with_format = [runtime for runtime in usable if replica.format in runtime.formats]
    if not with_format:
        return RequirementUnmet(
            f"no runtime can load the format {replica.format}; attach one that has its framework"
            " installed and allowed",
            format=replica.format,
        )
    lacking = [unmet(replica.requires, runtime) for runtime in with_format]
    # Names what no runtime has; if each runtime lacks something else, names all of that.
    nobody_has = [what for what in lacking[0] if all(what in others for others in lacking)]
    what = " and ".join(nobody_has) or "all of " + " and ".join(
        sorted({part for parts in lacking for part in parts})
    )
    return RequirementUnmet(
        f"no runtime meets the requirement {what}; attach one that does or ask for less",
        requirement=what,
    )


def plan(
    desired: Mapping[str, DesiredReplica],
    members: Iterable[Member],
    now: float,
    idle_seconds: float,
) -> list[Action]:
    """Returns the actions by which every desired replica is served, on more runtimes where requests
    pile up, and no other is.

    A replica that was not used for `idle_seconds` and has no pending requests is let go.
    """
    members = list(members)
    actions: list[Action] = []
    for replica in desired.values():
        if now - replica.last_used < idle_seconds or replica.pending:
            actions += _serve_more(replica, members, now)
    for member in members:
        for model in member.runtime.models:
            wanted = desired.get(model.key)
            if wanted is None or (now - wanted.last_used >= idle_seconds and not wanted.pending):
                actions.append(StopServing(member.instance, model.key))
    return actions


def _serve_more(replica: DesiredReplica, members: list[Member], now: float) -> list[Action]:
    able = candidates(replica, members)
    serving = [member for member in able if _serves(member, replica.key, now)]
    slots = sum(max(1, member.runtime.slots) for member in serving) or 1
    wanted = max(
        1, len(serving), math.ceil(replica.pending / (slots * PENDING_PER_SLOT)) if serving else 1
    )
    free = [
        member
        for member in able
        if member not in serving and now >= member.retry_at.get(replica.key, 0.0)
    ]
    free.sort(key=_load)
    return [Serve(member.instance, replica) for member in free[: max(0, wanted - len(serving))]]


def _serves(member: Member, key: str, now: float) -> bool:
    # An order that was just given counts, or it would be given again until the member reports.
    if now - member.ordered.get(key, -math.inf) < ORDER_SECONDS:
        return True
    model = member.served(key)
    return model is not None and model.state in (READY, LOADING)


def failure(replica: DesiredReplica, members: Iterable[Member]) -> ServiceError | None:
    """Returns the error that runtimes reported which could not load the replica, None while one may
    still succeed.
    """
    found: ServiceError | None = None
    for member in candidates(replica, members):
        model = member.served(replica.key)
        # This member may still succeed.
        if replica.key in member.ordered or (model is not None and model.state != FAILED):
            return None
        if model is None:
            continue
        code = errors.CODE_BY_NUMBER.get(model.error_code, errors.Internal.code)
        found = errors.rebuild(code, model.error_reason, model.error)
    return found


def _load(member: Member) -> tuple[float, int, str]:
    """Returns a sort key: the least busy member first, then the one with the fewest models."""
    runtime = member.runtime
    return runtime.in_flight / max(1, runtime.slots), len(runtime.models), runtime.name
