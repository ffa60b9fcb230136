"""What model names mean: asked of the repository once, kept until an event says otherwise.

After half a minute a name is asked again behind the answer, so that a repository that is away stops
nobody whose model is known.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from services.chassis.broker.port import Delivery
from services.chassis.single_flight import SingleFlight
from services.router.naming.former_versions import Turnover
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from stellwerk.type.v1 import event_pb2
from stellwerk.wire import topology
from stellwerk.wire.errors import InvalidInput, NotFound
from stellwerk.wire.names import ModelName, parse_model

_CAPACITY = 10_000
# News by which a name means another version; by other news there is one less.
_MOVES = frozenset((topology.VERSION_CREATED, topology.ALIAS_CHANGED))


class ModelDirectory:
    """A cache in front of the repository, with one call in flight per name."""

    def __init__(self, channel: Any, lifetime_seconds: float) -> None:
        self._stub: Any = stubs.RepositoryServiceStub(channel)
        self._lifetime = lifetime_seconds
        self._known: OrderedDict[ModelName, tuple[float, messages.ModelVersion]] = OrderedDict()
        self._asking: SingleFlight[ModelName, messages.ModelVersion] = SingleFlight()
        self._epoch = 0
        self.turnover = Turnover()

    @property
    def repository(self) -> Any:
        """The repository's stub, for what is asked too rarely to be kept."""
        return self._stub

    async def resolve(self, name: ModelName) -> messages.ModelVersion:
        """The version that the name means. Raises ModelNotFound, VersionNotFound, AliasNotFound,
        Unavailable.
        """
        known = self._known.get(name)
        if known is None:
            return await self._asking.run(name, lambda: self._ask(name))
        if known[0] <= time.monotonic():
            self._asking.start(name, lambda: self._ask(name))
        return known[1]

    def known(self, name: ModelName) -> messages.ModelVersion | None:
        """The version that the name means if that is known and fresh, without asking."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] > time.monotonic() else None

    async def _ask(self, name: ModelName) -> messages.ModelVersion:
        epoch = self._epoch
        try:
            answer = await self._stub.ResolveModelVersion(
                messages.ResolveModelVersionRequest(name=str(name)), timeout=5.0
            )
        except NotFound:
            self._known.pop(name, None)
            raise
        if epoch == self._epoch:
            self._known[name] = (time.monotonic() + self._lifetime, answer.model_version)
            if len(self._known) > _CAPACITY:
                self._known.popitem(last=False)
        version: messages.ModelVersion = answer.model_version
        return version

    async def versions(self, name: ModelName) -> list[str]:
        """The newest version numbers of a model, newest first."""
        request = messages.ListModelVersionsRequest(parent=name.parent, page_size=100)
        answer = await self._stub.ListModelVersions(request, timeout=5.0)
        return [str(version.version) for version in answer.model_versions]

    async def on_event(self, delivery: Delivery) -> None:
        """Forgets what an event of the repository is about."""
        self._epoch += 1
        try:
            changed = parse_model(event_pb2.Event.FromString(delivery.message.body).resource)
        except InvalidInput:
            self.clear()
            return
        moved, now = delivery.routing_key in _MOVES, time.monotonic()
        for name in [n for n in self._known if n.parent == changed.parent]:
            _, former = self._known.pop(name)
            if moved and name.version is None:
                self.turnover.changed(name, former, now)
        if not moved:
            self.turnover.forget(changed.parent)

    def clear(self) -> None:
        """Forgets everything, as after a broker outage in which events may have been missed."""
        self._epoch += 1
        self._known.clear()
        self.turnover.clear()
