"""Keeps models in memory: loads each once for all callers, measures it, and frees the least
recently used ones to make room. The accounting serves the artifacts on disk too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from services.chassis.single_flight import SingleFlight
from services.runtime.formats.port import LoadedModel
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.load_threads import Loader, ModelThreads
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Overloaded

K = TypeVar("K")
# Loads that one caller waits for, if the model is evicted again each time before the caller runs.
_ATTEMPTS = 3


class ArtifactSource(Protocol):
    """The part of ArtifactCache that is used here."""

    def open(self, version: repository_pb2.ModelVersion) -> AbstractAsyncContextManager[Path]: ...


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
        artifacts: ArtifactSource,
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


class NoRoom(Exception):
    """Raised when leased keys leave less than `needed` bytes of the capacity."""

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(f"{needed} of {capacity}")
        self.needed = needed
        self.capacity = capacity


@dataclass(slots=True)
class _Entry:
    size: int
    leases: int


class LruBytes(Generic[K]):
    """Sizes and leases by key; the sizes never exceed the capacity. A refusal changes nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        # Least recently used first.
        self._entries: OrderedDict[K, _Entry] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> list[K]:
        """Returns all keys, least recently used first."""
        return list(self._entries)

    def size(self, key: K) -> int:
        """Returns the size of a kept key."""
        return self._entries[key].size

    def leases(self, key: K) -> int:
        """Returns the number of leases on the key; 0 for one that is not kept."""
        entry = self._entries.get(key)
        return entry.leases if entry is not None else 0

    def add(self, key: K, size: int) -> list[K]:
        """Adds a new key with one lease. Returns the keys evicted for it. Raises NoRoom."""
        if key in self._entries:
            raise KeyError(key)
        gone = self._make_room(size)
        self._entries[key] = _Entry(size, 1)
        self.used += size
        return gone

    def resize(self, key: K, size: int) -> list[K]:
        """Changes the size of a leased key. Returns the keys evicted for it. Raises NoRoom."""
        entry = self._entries[key]
        gone = self._make_room(size - entry.size)
        self.used += size - entry.size
        entry.size = size
        return gone

    def lease(self, key: K) -> bool:
        """Adds a lease and marks the key as most recently used. Returns False if it is not kept."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry.leases += 1
        self._entries.move_to_end(key)
        return True

    def release(self, key: K) -> None:
        """Ends a lease. Raises ValueError if the key has none."""
        entry = self._entries[key]
        if entry.leases <= 0:
            raise ValueError(f"{key!r} is not leased")
        entry.leases -= 1

    def remove(self, key: K) -> None:
        """Removes the key, leased or not."""
        self.used -= self._entries.pop(key).size

    def _make_room(self, extra: int) -> list[K]:
        gone: list[K] = []
        free = self.capacity - self.used
        for key, entry in self._entries.items():
            if free >= extra:
                break
            if entry.leases == 0:
                gone.append(key)
                free += entry.size
        if free < extra:
            raise NoRoom(extra, self.capacity)
        for key in gone:
            self.remove(key)
        return gone
