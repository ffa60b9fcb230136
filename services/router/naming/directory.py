"""The versions that model names mean, cached in front of the repository, and the versions they
meant until a moment ago.

A name is resolved once and kept until an event says that it changed. After half a minute it is
resolved again behind the answer, so that a repository that is away stops nobody whose model is
known. While a new version is being loaded the one before it can still answer; see decision 21.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from services.chassis.bounded_cache import BoundedCache
from services.chassis.broker.port import Delivery
from services.chassis.single_flight import SingleFlight
from services.router.naming.target import ModelTarget
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from stellwerk.type.v1 import event_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import InvalidInput, NotFound
from stellwerk.wire.names import ModelName, parse_model

# Names that are kept; beyond, the one that was resolved first goes.
_MAX_NAMES = 10_000
# Seconds that the repository has to resolve a name.
_RESOLVE_SECONDS = 5.0
# Newest versions that a description of a model lists.
_MAX_LISTED = 100
# Events by which a name means another version; by any other event a version or name is gone.
_MOVES = frozenset((topology.VERSION_CREATED, topology.ALIAS_CHANGED))

# Seconds after a change for which calls wait for the new version: whoever stores it and calls it at
# once is answered by it, if it loads as most models do. Afterwards the one before answers at once.
PATIENCE_SECONDS = 2.0
# The share of its time that a call waits for the new version at most.
_PATIENCE_SHARE = 0.5
# Former versions of a name that are kept: those stored faster than they could be loaded.
_MAX_FORMER = 4


@dataclass(slots=True)
class NameChange:
    """A name that has meant another version since `since`, in time.monotonic()."""

    since: float
    # The versions it meant before, the newest first.
    former: list[ModelTarget] = field(default_factory=list)

    def patience(self, now: float, deadline: float) -> float:
        """Returns until when a call with this deadline waits for the new version."""
        return min(self.since + PATIENCE_SECONDS, now + (deadline - now) * _PATIENCE_SHARE)


class FormerVersions:
    """The names whose new version has not answered yet. Nearly always there are none."""

    def __init__(self) -> None:
        # An attribute, so that a call of a model finds out for nothing that there are none.
        self.changes: BoundedCache[ModelName, NameChange] = BoundedCache(_MAX_NAMES)

    def of(self, name: ModelName) -> NameChange | None:
        """Returns the name's change, None for a name that is settled."""
        return self.changes.get(name)

    def changed(self, name: ModelName, former: ModelTarget, now: float) -> None:
        """Records that the name does not mean `former` any more."""
        change = self.changes.get(name) or NameChange(now)
        change.since = now
        change.former = [former, *change.former][:_MAX_FORMER]
        self.changes.keep(name, change)

    def settled(self, name: ModelName) -> None:
        """Forgets the former versions of a name whose new version answers."""
        self.changes.pop(name, None)

    def forget(self, parent: str) -> None:
        """Forgets the names of a model that lost a version or alias: no former one may answer."""
        for name in [name for name in self.changes if name.parent == parent]:
            del self.changes[name]

    def clear(self) -> None:
        """Forgets all names."""
        self.changes.clear()


class ModelDirectory:
    """Resolves names, with one call to the repository on its way per name."""

    def __init__(self, channel: Any, lifetime_seconds: float) -> None:
        # For requests that are too rare to be cached, too.
        self.repository: Any = stubs.RepositoryServiceStub(channel)
        self.former_versions = FormerVersions()
        self._lifetime = lifetime_seconds
        # When a name is to be resolved again, and its version.
        self._known: BoundedCache[ModelName, tuple[float, ModelTarget]] = BoundedCache(_MAX_NAMES)
        # One target for each version, whichever names mean it, as long as any name does.
        self._targets: WeakValueDictionary[str, ModelTarget] = WeakValueDictionary()
        self._resolving: SingleFlight[ModelName, ModelTarget] = SingleFlight()
        # Counts events: what was asked before the newest one is not kept.
        self._epoch = 0

    async def resolve(self, name: ModelName) -> ModelTarget:
        """Returns the version that the name means. Raises ModelNotFound, VersionNotFound,
        AliasNotFound, Unavailable.
        """
        known = self._known.get(name)
        if known is None:
            return await self._resolving.run(name, lambda: self._ask(name))
        if known[0] <= time.monotonic():
            self._resolving.start(name, lambda: self._ask(name))
        return known[1]

    def known(self, name: ModelName) -> ModelTarget | None:
        """Returns the version that the name means if that is known and fresh, without asking."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] > time.monotonic() else None

    async def _ask(self, name: ModelName) -> ModelTarget:
        epoch = self._epoch
        try:
            answer = await self.repository.ResolveModelVersion(
                messages.ResolveModelVersionRequest(name=str(name)), timeout=_RESOLVE_SECONDS
            )
        except NotFound:
            self._known.pop(name, None)
            raise
        target = self._target(answer.model_version)
        if epoch == self._epoch:
            self._known.keep(name, (time.monotonic() + self._lifetime, target))
        return target

    def _target(self, version: messages.ModelVersion) -> ModelTarget:
        """Returns the target of a version; what was learned of a known one is kept."""
        target = self._targets.get(version.name)
        if target is None or target.version != version:
            target = self._targets[version.name] = ModelTarget(version)
        return target

    async def versions(self, name: ModelName) -> list[str]:
        """Returns the newest version numbers of a model, newest first."""
        request = messages.ListModelVersionsRequest(parent=name.parent, page_size=_MAX_LISTED)
        answer = await self.repository.ListModelVersions(request, timeout=_RESOLVE_SECONDS)
        return [str(version.version) for version in answer.model_versions]

    async def on_event(self, delivery: Delivery) -> None:
        """Forgets the names of the model that an event of the repository is about."""
        self._epoch += 1
        try:
            changed = parse_model(event_pb2.Event.FromString(delivery.message.body).resource)
        except InvalidInput:
            self.clear()
            return
        moved = delivery.routing_key in _MOVES
        now = time.monotonic()
        for name in [name for name in self._known if name.parent == changed.parent]:
            _, former = self._known.pop(name)
            if moved and name.version is None:
                self.former_versions.changed(name, former, now)
        if not moved:
            self.former_versions.forget(changed.parent)

    def clear(self) -> None:
        """Forgets all names, as after a broker outage in which events may have been missed."""
        self._epoch += 1
        self._known.clear()
        self.former_versions.clear()
