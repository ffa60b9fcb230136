"""Keeps models served: takes demands from requests, has `plan` decide, tells runtimes, lets
requests wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from services.router.fleet import placement
from services.router.fleet import requirements as matching
from services.router.fleet.placement import Demand, Serve
from services.router.fleet.registry import Fleet
from services.router.queueing.pending_requests import PendingTable
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import DeadlinePassed, NoRuntimeAvailable

_INTERVAL = 0.5
# A fleet that has just lost its last runtime for a key gets this long to find another before
# callers are told.
_GRACE_SECONDS = 3.0


# What a runtime is told; None ends its stream.
Outgoing = asyncio.Queue[messages.AttachResponse | None]


class Serving:
    """The demands, and what is being done about them."""

    def __init__(
        self,
        fleet: Fleet,
        pending: PendingTable,
        idle_seconds: float,
        forget: Callable[[str], None],
    ) -> None:
        self.fleet, self._pending, self._idle_seconds, self._forget = (
            fleet,
            pending,
            idle_seconds,
            forget,
        )
        self.demands: dict[str, Demand] = {}
        self._outgoing: dict[str, Outgoing] = {}
        self._changed = asyncio.Event()
        self._unserved_since: dict[str, float] = {}
        # A router that just started hears of its fleet within moments; until then "no runtime" is
        # not known.
        self._started = time.monotonic()

    def attach(self, instance: str, outgoing: Outgoing) -> None:
        """A runtime can be told things from now on."""
        self._outgoing[instance] = outgoing

    def detach(self, instance: str, outgoing: Outgoing) -> None:
        """A runtime's stream ended. A newer stream of the same process is not touched."""
        if self._outgoing.get(instance) is outgoing:
            del self._outgoing[instance]
            self.fleet.detach(instance)
            self.reconcile()

    def demand(
        self, version: repository.ModelVersion, requires: requirements_pb2.Requirements
    ) -> Demand:
        """That this version be served under these requirements; the hot path, it only looks up."""
        merged = matching.merge(version.requires, requires)
        key = topology.serving_key(version.name, merged)
        now = time.monotonic()
        known = self.demands.get(key)
        if known is None or not known.format:
            known = Demand(key, version.name, version.format, merged, now)
            self.demands[key] = known
        known.last_used = now
        return known

    def keeps(self, demand: Demand) -> bool:
        """Whether the demand is still one of ours: those that nobody uses are dropped."""
        return self.demands.get(demand.key) is demand

    def servable(self, version: repository.ModelVersion) -> bool:
        """Whether a runtime answers the version now or could be told to."""
        demand = Demand("", version.name, version.format, version.requires, 0.0)
        return bool(placement.candidates(demand, self.fleet.members.values()))

    async def ready(self, demand: Demand, deadline: float) -> None:
        """Returns when a runtime answers the demand. Raises why none can, or DeadlinePassed."""
        while not self.fleet.ready(demand.key):
            # Who waits uses the model: it stays wanted, whatever becomes of the demand meanwhile.
            demand.last_used = time.monotonic()
            self.demands[demand.key] = demand
            self._act()
            members = self.fleet.members.values()
            if not placement.candidates(demand, members):
                error = placement.explain(demand, members)
                if (
                    not isinstance(error, NoRuntimeAvailable)
                    or time.monotonic() - self._started > _GRACE_SECONDS
                ):
                    raise error
            failed = placement.failure(demand, members)
            if failed is not None:
                raise failed
            await self._wait_for_change(deadline)

    async def load(self, version: repository.ModelVersion, deadline: float) -> None:
        """Returns when a runtime answers the version. One that could not be loaded is tried again
        now. Raises as `ready` does."""
        demand = self.demand(version, requirements_pb2.Requirements())
        for member in self.fleet.members.values():
            member.retry_at.pop(demand.key, None)
        await self.ready(demand, deadline)

    async def unload(self, model: str, deadline: float) -> None:
        """Has every version of buckets/{bucket}/models/{model} let go, after the answers to what
        was already asked.

        Returns when no runtime has it any more, or at the deadline; what is asked for meanwhile is
        kept and served.
        """
        self.reconcile()
        idle = [
            demand
            for demand in self.demands.values()
            if demand.model_version.startswith(f"{model}/versions/")
        ]
        for demand in idle:
            demand.last_used = -math.inf
        self.reconcile()
        while time.monotonic() < deadline:
            served = self.fleet.known_keys()
            if not any(demand.key in served and demand.last_used == -math.inf for demand in idle):
                return
            with contextlib.suppress(DeadlinePassed):
                await self._wait_for_change(deadline)
            self._act()

    async def _wait_for_change(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlinePassed(
                "the model was not loaded before the deadline; give the first call more time"
            )
        try:
            await asyncio.wait_for(self._changed.wait(), min(left, _INTERVAL))
        except TimeoutError:
            return

    def reconcile(self) -> None:
        """Plans and carries out; wakes those who wait."""
        self._act()
        self._changed.set()
        self._changed.clear()

    def _act(self) -> None:
        """Plans and carries out. Who waits for a change calls this one, lest those who wait wake
        each other.
        """
        now = time.monotonic()
        for demand in self.demands.values():
            demand.pending = self._pending.count(demand.key)
        self._adopt(now)
        for action in placement.plan(
            self.demands, self.fleet.members.values(), now, self._idle_seconds
        ):
            self._carry_out(action, now)
        self._drop_idle(now)
        self._fail_unserved(now)

    def _adopt(self, now: float) -> None:
        """Keys that runtimes serve but nobody asked this process for: a router before us did."""
        for member in self.fleet.members.values():
            for model in member.runtime.models:
                if model.key not in self.demands:
                    empty = requirements_pb2.Requirements()
                    self.demands[model.key] = Demand(model.key, model.model_version, "", empty, now)

    def _carry_out(self, action: placement.Action, now: float) -> None:
        outgoing = self._outgoing.get(action.instance)
        if outgoing is None:
            return
        if isinstance(action, Serve):
            demand = action.demand
            self.fleet.members[action.instance].ordered[demand.key] = now
            self.fleet.members[action.instance].retry_at.pop(demand.key, None)
            serve = messages.Serve(key=demand.key, model_version=demand.model_version)
            outgoing.put_nowait(messages.AttachResponse(serve=serve))
        else:
            outgoing.put_nowait(
                messages.AttachResponse(stop_serving=messages.StopServing(key=action.key))
            )

    def _drop_idle(self, now: float) -> None:
        served = self.fleet.known_keys()
        for key, demand in list(self.demands.items()):
            if (
                key not in served
                and not demand.pending
                and now - demand.last_used >= self._idle_seconds
            ):
                del self.demands[key]
                self._forget(key)

    def _fail_unserved(self, now: float) -> None:
        """Requests already sent to a queue that nobody will ever read are told so instead of timing
        out.
        """
        for key, demand in self.demands.items():
            members = self.fleet.members.values()
            if not demand.pending or self.fleet.ready(key) or placement.candidates(demand, members):
                self._unserved_since.pop(key, None)
                continue
            if now - self._unserved_since.setdefault(key, now) >= _GRACE_SECONDS:
                self._pending.fail_key(key, placement.explain(demand, members))

    def _close(self, instance: str) -> None:
        """Ends a runtime's stream; the runtime attaches anew by itself."""
        outgoing = self._outgoing.pop(instance, None)
        if outgoing is not None:
            outgoing.put_nowait(None)

    async def release(self) -> None:
        """Ends all streams, so that runtimes look for the router that comes next."""
        for instance in list(self._outgoing):
            self._close(instance)

    async def run(self) -> None:
        """Expires silent runtimes and reconciles, for ever."""
        while True:
            for instance in self.fleet.expire(time.monotonic()):
                self._close(instance)
            self.reconcile()
            await asyncio.sleep(_INTERVAL)
