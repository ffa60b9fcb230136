"""Models in memory: loaded once however many ask, measured, let go least recently used first when
room is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.chassis.single_flight import SingleFlight
from services.runtime.formats.port import LoadedModel
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.artifacts import ArtifactCache
from services.runtime.models.load_threads import Loader, ModelThreads
from services.runtime.models.lru import LruBytes, NoRoom
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Overloaded

# A model that was loaded and pushed out again this often before its caller came to run is not tried
# any further.
_ATTEMPTS = 3


@dataclass(slots=True)
class Resident:
    """A model in memory and what is known of it."""

    version: repository_pb2.ModelVersion
    model: LoadedModel
    memory_bytes: int
    calls: int = 0


class ModelCache:
    """Loaded models by version name."""

    def __init__(
        self,
        capacity: int,
        artifacts: ArtifactCache,
        loader: Loader,
        metrics: RuntimeMetrics,
        *,
        imported: Callable[[], None] = lambda: None,
    ) -> None:
        """`capacity` is in bytes; for `imported` see ModelThreads."""
        self._artifacts = artifacts
        self._threads = ModelThreads(loader, imported)
        self._metrics = metrics
        self._policy: LruBytes[str] = LruBytes(capacity)
        self._residents: dict[str, Resident] = {}
        self._waiting: Counter[str] = Counter()
        self._unwanted: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._flights: SingleFlight[str, None] = SingleFlight()

    @property
    def capacity(self) -> int:
        """Bytes that models may use."""
        return self._policy.capacity

    @property
    def used(self) -> int:
        """Bytes that models use, those being loaded included."""
        return self._policy.used

    def residents(self) -> list[tuple[Resident, int]]:
        """The models in memory, each with the number of its users, least recently used first."""
        keys = [key for key in self._policy.keys() if key in self._residents]  # noqa: SIM118
        return [(self._residents[key], self._policy.leases(key)) for key in keys]

    @asynccontextmanager
    async def lease(self, version: repository_pb2.ModelVersion) -> AsyncIterator[Resident]:
        """The model, kept in memory for as long as this is open.

        Raises Overloaded if what is in use leaves no room, ModelFailed if it does not load, and
        what fetching raises.
        """
        resident = await self._resident(version)
        try:
            yield resident
        finally:
            self.release(version.name)

    def try_lease(self, name: str) -> Resident | None:
        """The model if it is in memory already, until `release`."""
        resident = self._residents.get(name)
        return resident if resident is not None and self._policy.lease(name) else None

    def release(self, name: str) -> None:
        """Gives back what `try_lease` gave."""
        self._policy.release(name)
        if name in self._unwanted:
            self._drop_unused(name)

    def want(self, name: str) -> None:
        """Takes a `discard` back: the model stays when its last user leaves."""
        self._unwanted.discard(name)

    def discard(self, name: str) -> None:
        """Lets a model go: now if nobody uses it, else with its last user."""
        self._unwanted.add(name)
        self._drop_unused(name)

    async def settled(self) -> None:
        """Waits until the memory of every model that was let go is the system's again."""
        await asyncio.gather(*self._leaving)

    async def close(self) -> None:
        """Lets everything go."""
        await self._flights.close()
        for name in list(self._residents):
            self._let_go(name)
        await self.settled()
        self._threads.close()

    async def _resident(self, version: repository_pb2.ModelVersion) -> Resident:
        name = version.name
        self._waiting[name] += 1
        try:
            for _ in range(_ATTEMPTS):
                if (resident := self.try_lease(name)) is not None:
                    return resident
                await self._flights.run(name, lambda: self._bring_in(version))
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
                if name in self._unwanted:
                    self._drop_unused(name)
        raise Overloaded(
            "the runtime's memory for models is contended; try again", model_version=name
        )

    async def _bring_in(self, version: repository_pb2.ModelVersion) -> None:
        name = version.name
        try:
            # The artifact's size stands in until the footprint is known, so that room is made
            # before it is needed.
            self._evict(self._policy.add(name, version.size_bytes))
            async with self._artifacts.open(version) as path:
                await self.settled()
                started = time.monotonic()
                model, memory_bytes = await self._threads.load(path, version)
            self._metrics.load_seconds.observe(time.monotonic() - started)
            try:
                self._evict(self._policy.resize(name, memory_bytes))
            except NoRoom:
                await self._threads.let_go(model, memory_bytes)
                raise
        except NoRoom as exc:
            self._forget(name)
            raise Overloaded(
                f"the model needs {exc.needed} more bytes of memory than are free of the"
                f" {exc.capacity} that this runtime may use for models",
                needed_bytes=exc.needed,
                capacity_bytes=exc.capacity,
            ) from None
        except BaseException:
            self._forget(name)
            raise
        self._residents[name] = Resident(version, model, memory_bytes)
        self._metrics.loaded(name)
        self._metrics.resident_bytes.set(self._policy.used)
        self.release(name)

    def _forget(self, name: str) -> None:
        if name in self._policy:
            self._policy.remove(name)

    def _evict(self, names: Iterable[str]) -> None:
        for name in names:
            self._let_go(name)
            self._metrics.evicted(name)

    def _drop_unused(self, name: str) -> None:
        if name in self._residents and self._policy.leases(name) == 0 and name not in self._waiting:
            self._policy.remove(name)
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        resident = self._residents.pop(name)
        self._metrics.resident_bytes.set(self._policy.used)
        leaving = asyncio.create_task(self._threads.let_go(resident.model, resident.memory_bytes))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
