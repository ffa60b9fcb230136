"""Models in memory: loaded once however many ask, measured, let go least recently used first when room is needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from services.runtime.artifacts import ArtifactCache
from services.runtime.formats.port import LoadedModel
from services.runtime.lru import LruBytes, NoRoom
from services.runtime.metrics import RuntimeMetrics
from services.runtime.single_flight import SingleFlight
from services.wire.errors import ModelFailed, Overloaded, ServiceError
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2

# A model that was loaded and pushed out again this often before its caller came to run is not tried any further.
_ATTEMPTS = 3


class Loader(Protocol):
    """What makes models of artifacts, in a worker thread."""

    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...
    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel: ...


@dataclass(slots=True)
class Resident:
    """A model in memory and what is known of it."""

    version: repository_pb2.ModelVersion
    model: LoadedModel
    memory_bytes: int
    calls: int = 0


class ModelCache:
    """Loaded models by version name."""

    def __init__(self, capacity: int, artifacts: ArtifactCache, loader: Loader, metrics: RuntimeMetrics) -> None:
        self._artifacts = artifacts
        self._loader = loader
        self._metrics = metrics
        self._policy: LruBytes[str] = LruBytes(capacity)
        self._residents: dict[str, Resident] = {}
        self._flights: SingleFlight[None] = SingleFlight()
        # One at a time: the growth of the process then is the model's, and torch's loader is not made for two.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")

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

        Raises Overloaded if what is in use leaves no room, ModelFailed if it does not load, and what fetching raises.
        """
        name = version.name
        for _ in range(_ATTEMPTS):
            if name in self._residents and self._policy.lease(name):
                break
            await self._flights.run(name, lambda: self._bring_in(version))
        else:
            raise Overloaded("the runtime's memory for models is contended; try again", model_version=name)
        try:
            yield self._residents[name]
        finally:
            self._policy.release(name)

    def try_lease(self, name: str) -> Resident | None:
        """The model if it is in memory already, until `release`."""
        resident = self._residents.get(name)
        return resident if resident is not None and self._policy.lease(name) else None

    def release(self, name: str) -> None:
        """Gives back what `try_lease` gave."""
        self._policy.release(name)

    def discard(self, name: str) -> None:
        """Lets a model go that nobody uses; one in use goes when room is needed."""
        if name in self._residents and self._policy.leases(name) == 0:
            self._policy.remove(name)
            self._let_go(name)

    async def close(self) -> None:
        """Lets everything go."""
        await self._flights.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for resident in self._residents.values():
            resident.model.close()
        self._residents.clear()

    async def _bring_in(self, version: repository_pb2.ModelVersion) -> None:
        name = version.name
        try:
            # The artifact's size stands in until the footprint is known, so that room is made before it is needed.
            self._evict(self._policy.add(name, version.size_bytes))
            async with self._artifacts.open(version) as path:
                resident = await self._load_measured(path, version)
            try:
                self._evict(self._policy.resize(name, resident.memory_bytes))
            except NoRoom:
                resident.model.close()
                raise
        except NoRoom as exc:
            self._drop(name)
            raise Overloaded(
                f"the model needs {exc.needed} more bytes of memory than are free of the {exc.capacity} that this "
                "runtime may use for models",
                needed_bytes=exc.needed,
                capacity_bytes=exc.capacity,
            ) from None
        except BaseException:
            self._drop(name)
            raise
        self._residents[name] = resident
        self._policy.release(name)
        self._metrics.loaded(name)
        self._metrics.resident_bytes.set(self._policy.used)

    def _drop(self, name: str) -> None:
        if name in self._policy:
            self._policy.remove(name)

    async def _load_measured(self, path: Path, version: repository_pb2.ModelVersion) -> Resident:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            resident = await loop.run_in_executor(self._thread, self._load_in_thread, path, version)
        except ServiceError:
            raise
        except MemoryError as exc:
            raise Overloaded("the runtime has not enough memory to load the model") from exc
        except Exception as exc:
            raise ModelFailed(
                f"the model could not be loaded; loading raised {type(exc).__name__}", exception=type(exc).__name__
            ) from exc
        self._metrics.load_seconds.observe(time.monotonic() - started)
        return resident

    def _load_in_thread(self, path: Path, version: repository_pb2.ModelVersion) -> Resident:
        self._loader.prepare(version)
        process = psutil.Process()
        before = process.memory_info().rss
        model = self._loader.load(path, version)
        grown = process.memory_info().rss - before
        # Both lie low at times: estimates forget what libraries add, growth is hidden by memory that was free before.
        return Resident(version, model, max(model.memory_bytes, grown, 1))

    def _evict(self, names: list[str]) -> None:
        for name in names:
            self._let_go(name)
            self._metrics.evicted(name)

    def _let_go(self, name: str) -> None:
        resident = self._residents.pop(name)
        resident.model.close()
        self._metrics.resident_bytes.set(self._policy.used)
