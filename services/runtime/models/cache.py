"""Keeps models in memory: loads each once for all callers, measures it, and frees the least
recently used ones to make room.
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

# Loads that one caller waits for, if the model is evicted again each time before the caller runs.
_ATTEMPTS = 3


@dataclass(slots=True)
class Resident:
    """A model in memory, its footprint in bytes, and the number of requests it was called for."""

    version: repository_pb2.ModelVersion
    model: LoadedModel
    memory_bytes: int
    calls: int = 0


class ModelCache:
    """Loaded models by their versions' resource names."""

    def __init__(
        self,
        capacity: int,
        artifacts: ArtifactCache,
        loader: Loader,
        metrics: RuntimeMetrics,
        *,
        imported: Callable[[], None] = lambda: None,
    ) -> None:
        """Keeps models of at most `capacity` bytes. `imported` is explained in ModelThreads."""
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
        """Bytes that models use, including models that are being loaded."""
        return self._policy.used

    def residents(self) -> list[tuple[Resident, int]]:
        """Returns the models in memory and their numbers of leases, least recently used first."""
        keys = [key for key in self._policy.keys() if key in self._residents]  # noqa: SIM118
        return [(self._residents[key], self._policy.leases(key)) for key in keys]

    @asynccontextmanager
    async def lease(self, version: repository_pb2.ModelVersion) -> AsyncIterator[Resident]:
        """Yields the model, loaded if necessary, which stays in memory until the block ends.

        Raises Overloaded if models in use leave no room, ModelFailed if it does not load, and what
        fetching the artifact raises.
        """
        resident = await self._resident(version)
        try:
            yield resident
        finally:
            self.release(version.name)

    def try_lease(self, name: str) -> Resident | None:
        """Returns the model, leased until `release`, if it is in memory; else None."""
        resident = self._residents.get(name)
        return resident if resident is not None and self._policy.lease(name) else None

    def release(self, name: str) -> None:
        """Ends a lease of `try_lease`."""
        self._policy.release(name)
        if name in self._unwanted:
            self._drop_unused(name)

    def want(self, name: str) -> None:
        """Withdraws a `discard`: the model stays when its last lease ends."""
        self._unwanted.discard(name)

    def discard(self, name: str) -> None:
        """Frees a model now, or when its last lease ends."""
        self._unwanted.add(name)
        self._drop_unused(name)

    async def settled(self) -> None:
        """Waits until the memory of every freed model is back with the system."""
        await asyncio.gather(*self._leaving)

    async def close(self) -> None:
        """Frees every model and ends the loading threads."""
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
            # The artifact's size stands for the unknown footprint, so that room is made before the
            # load needs it.
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
