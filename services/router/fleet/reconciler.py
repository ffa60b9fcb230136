"""Keeps models served: takes desired replicas from requests, has `plan` decide, tells runtimes, and
lets requests wait until a runtime is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from services.router.fleet import placement
from services.router.fleet.placement import DesiredReplica, Serve
from services.router.fleet.registry import FleetRegistry
from services.router.fleet.requirements import merge
from services.router.queueing.pending_requests import PendingRequests
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import DeadlinePassed, NoRuntimeAvailable

# Seconds between two plans, and between two looks of a request that waits for a runtime.
_INTERVAL_SECONDS = 0.5
# Seconds that a fleet without a runtime for a key has to find one before callers are told.
_GRACE_SECONDS = 3.0

# The orders for one runtime; None ends its stream.
Outgoing = asyncio.Queue[messages.AttachResponse | None]


class Reconciler:
    """The desired replicas, and the orders by which runtimes come to serve them."""

    def __init__(
        self,
        registry: FleetRegistry,
        pending: PendingRequests,
        idle_seconds: float,
        forget: Callable[[str], None],
    ) -> None:
        """Lets a replica go that was not used for `idle_seconds`; `forget` is told its key."""
        self.registry = registry
        self._pending = pending
        self._idle_seconds = idle_seconds
        self._forget = forget
        self._desired: dict[str, DesiredReplica] = {}
        self._outgoing: dict[str, Outgoing] = {}
        self._changed = asyncio.Event()
        self._unserved_since: dict[str, float] = {}
        self._started = time.monotonic()

    def attach(self, instance: str, outgoing: Outgoing) -> None:
        """Sends orders for a runtime to `outgoing` from now on."""
        self._outgoing[instance] = outgoing

    def detach(self, instance: str, outgoing: Outgoing) -> None:
        """Takes out a runtime whose stream ended, unless a newer stream of its process is there."""
        if self._outgoing.get(instance) is outgoing:
            del self._outgoing[instance]
            self.registry.detach(instance)
            self.reconcile()

    def desire(
        self, version: repository.ModelVersion, requires: requirements_pb2.Requirements
    ) -> DesiredReplica:
        """Returns the replica that serves the version under its own and these requirements, and
        keeps it from now on. Raises InvalidInput if the two contradict each other.
        """
        merged = merge(version.requires, requires)
        key = topology.serving_key(version.name, merged)
        now = time.monotonic()
        known = self._desired.get(key)
        # A replica that was adopted has no format, so nothing could be planned for it.
        if known is None or not known.format:
            known = DesiredReplica(key, version.name, version.format, merged, now)
            self._keep(known)
        known.last_used = now
        return known

    def find(self, key: str) -> DesiredReplica | None:
        """Returns the replica of a key, None if none is kept."""
        return self._desired.get(key)

    def _keep(self, replica: DesiredReplica) -> None:
        replaced = self._desired.get(replica.key)
        if replaced is not None:
            replaced.kept = False
        self._desired[replica.key] = replica
        replica.kept = True

    def _drop(self, replica: DesiredReplica) -> None:
        del self._desired[replica.key]
        replica.kept = False
        self._forget(replica.key)

    def servable(self, version: repository.ModelVersion) -> bool:
        """Returns whether a runtime answers the version now or could be told to."""
        replica = DesiredReplica("", version.name, version.format, version.requires, 0.0)
        return bool(placement.candidates(replica, self.registry.members.values()))

    async def make_ready(self, replica: DesiredReplica, deadline: float) -> None:
        """Returns when a runtime answers the replica's key. Raises NoRuntimeAvailable or
        RequirementUnmet if none can, the error of a runtime that could not load the version, and
        DeadlinePassed.
        """
        while not self.registry.ready(replica.key):
            # A request that waits uses the replica, so it is kept even if it was dropped meanwhile.
            replica.last_used = time.monotonic()
            self._keep(replica)
            self._act()
            members = self.registry.members.values()
            if not placement.candidates(replica, members):
                error = placement.explain(replica, members)
                young = time.monotonic() - self._started <= _GRACE_SECONDS
                # The runtimes of a router that has just started are about to attach.
                if not (young and isinstance(error, NoRuntimeAvailable)):
                    raise error
            failed = placement.failure(replica, members)
            if failed is not None:
                raise failed
            await self._wait_for_change(deadline)

    async def load(self, version: repository.ModelVersion, deadline: float) -> None:
        """Returns when a runtime answers the version; has a runtime that could not load it try
        again now. Raises as `make_ready` does.
        """
        replica = self.desire(version, requirements_pb2.Requirements())
        for member in self.registry.members.values():
            member.retry_at.pop(replica.key, None)
        await self.make_ready(replica, deadline)

    async def unload(self, model: str, deadline: float) -> None:
        """Has every version of buckets/{bucket}/models/{model} let go, after the replies to the
        requests there are.

        Returns when no runtime has a version any more, or at the deadline. A version that is
        requested meanwhile is kept and served.
        """
        self.reconcile()
        idle = [
            replica
            for replica in self._desired.values()
            if replica.model_version.startswith(f"{model}/versions/")
        ]
        # A request sets the time anew, so a version that is used meanwhile is told from the others.
        for replica in idle:
            replica.last_used = -math.inf
        self.reconcile()
        while time.monotonic() < deadline:
            served = self.registry.known_keys()
            if not any(one.key in served and one.last_used == -math.inf for one in idle):
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
            async with asyncio.timeout(min(left, _INTERVAL_SECONDS)):
                await self._changed.wait()
        except TimeoutError:
            return

    def reconcile(self) -> None:
        """Plans, carries the plan out and wakes the requests that wait for a runtime."""
        self._act()
        # Wakes all that wait now, and none that begin to wait afterwards.
        self._changed.set()
        self._changed.clear()

    def _act(self) -> None:
        """Plans and carries the plan out. A request that waits calls this one instead of
        `reconcile`, so that requests that wait do not wake each other.
        """
        now = time.monotonic()
        for replica in self._desired.values():
            replica.pending = self._pending.count(replica.key)
        self._adopt(now)
        for action in placement.plan(
            self._desired, self.registry.members.values(), now, self._idle_seconds
        ):
            self._carry_out(action, now)
        self._drop_idle(now)
        self._fail_unserved(now)

    def _adopt(self, now: float) -> None:
        """Takes over keys that runtimes serve for a router before this one."""
        for member in self.registry.members.values():
            for model in member.runtime.models:
                if model.key not in self._desired:
                    empty = requirements_pb2.Requirements()
                    self._keep(DesiredReplica(model.key, model.model_version, "", empty, now))

    def _carry_out(self, action: placement.Action, now: float) -> None:
        outgoing = self._outgoing.get(action.instance)
        if outgoing is None:
            return
        if isinstance(action, Serve):
            replica = action.replica
            member = self.registry.members[action.instance]
            member.ordered[replica.key] = now
            member.retry_at.pop(replica.key, None)
            serve = messages.Serve(key=replica.key, model_version=replica.model_version)
            outgoing.put_nowait(messages.AttachResponse(serve=serve))
        else:
            outgoing.put_nowait(
                messages.AttachResponse(stop_serving=messages.StopServing(key=action.key))
            )

    def _drop_idle(self, now: float) -> None:
        served = self.registry.known_keys()
        for replica in list(self._desired.values()):
            idle = now - replica.last_used >= self._idle_seconds and not replica.pending
            if idle and replica.key not in served:
                self._drop(replica)

    def _fail_unserved(self, now: float) -> None:
        """Ends requests that were sent to a queue which no runtime will ever read, instead of
        having them time out.
        """
        for key, replica in self._desired.items():
            members = self.registry.members.values()
            if (
                not replica.pending
                or self.registry.ready(key)
                or placement.candidates(replica, members)
            ):
                self._unserved_since.pop(key, None)
                continue
            if now - self._unserved_since.setdefault(key, now) >= _GRACE_SECONDS:
                self._pending.fail_key(key, placement.explain(replica, members))

    def _close(self, instance: str) -> None:
        """Ends a runtime's stream; the runtime then attaches again by itself."""
        outgoing = self._outgoing.pop(instance, None)
        if outgoing is not None:
            outgoing.put_nowait(None)

    async def release(self) -> None:
        """Ends all streams, so that runtimes look for the next router."""
        for instance in list(self._outgoing):
            self._close(instance)

    async def run(self) -> None:
        """Expires silent runtimes and reconciles, forever."""
        while True:
            for instance in self.registry.expire(time.monotonic()):
                self._close(instance)
            self.reconcile()
            await asyncio.sleep(_INTERVAL_SECONDS)
