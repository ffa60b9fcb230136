"""Models in memory: one load for many, a bound that holds, and nothing in use is ever closed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.runtime.artifacts import ArtifactCache
from services.runtime.cache import ModelCache
from services.runtime.formats.port import Array, Arrays
from services.runtime.metrics import RuntimeMetrics
from services.wire.errors import InvalidInput, ModelFailed, Overloaded, ServiceError
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from tests.fakes import models
from tests.fakes.repository_source import FakeRepository

# Beside such footprints the growth of the process that is measured around a load of nothing does not count.
MB = 1 << 20
BIG = 1000 * MB


class Kept:
    """A model that only takes room."""

    device = "cpu"

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.closed = False

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        assert not self.closed
        return dict(inputs)

    def close(self) -> None:
        self.closed = True


class Bench:
    """A cache with everything around it."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.repository = FakeRepository()
        self.registry = CollectorRegistry()
        self.loaded: list[str] = []
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        artifacts = ArtifactCache(folder, MB, self.repository.download, fetched=lambda: None)
        self.cache = ModelCache(capacity, artifacts, self, RuntimeMetrics(self.registry))

    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> Kept:
        assert self.gate.wait(10)
        self.loaded.append(version.name)
        if self.failure is not None:
            raise self.failure
        return Kept(int(version.metadata["footprint"]))

    def version(self, number: int, footprint: int = BIG) -> repository_pb2.ModelVersion:
        version = models.version("kept", name=f"buckets/default/models/m/versions/{number}")
        version.metadata["footprint"] = str(footprint)
        return self.repository.add(version, b"x" * number)

    def count(self, metric: str, version: repository_pb2.ModelVersion) -> float:
        return self.registry.get_sample_value(metric, {"model_version": version.name}) or 0.0


async def test_a_hundred_callers_at_once_load_a_model_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)

    async def use() -> None:
        async with bench.cache.lease(version) as resident:
            resident.model.call("predict", {})

    await asyncio.gather(*(use() for _ in range(100)))

    assert bench.loaded == [version.name]
    assert bench.count("stellwerk_model_loads_total", version) == 1


async def test_the_least_recently_used_model_makes_room_and_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2 * BIG + 500 * MB)
    first, second, third = (bench.version(number) for number in (1, 2, 3))
    kept = {}
    for version in (first, second, first, third):
        async with bench.cache.lease(version) as resident:
            kept[version.name] = resident.model

    assert [resident.version.name for resident, _ in bench.cache.residents()] == [first.name, third.name]
    assert kept[second.name].closed and not kept[first.name].closed
    assert bench.count("stellwerk_model_evictions_total", second) == 1


async def test_a_model_in_use_is_never_evicted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BIG + 500 * MB)
    first, second = bench.version(1), bench.version(2)

    async with bench.cache.lease(first) as resident:
        with pytest.raises(Overloaded, match="more bytes of memory"):
            async with bench.cache.lease(second):
                pass
        resident.model.call("predict", {})

    async with bench.cache.lease(second) as resident:
        assert resident.version.name == second.name
    assert bench.cache.used <= bench.cache.capacity


async def test_a_model_larger_than_all_memory_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BIG)

    with pytest.raises(Overloaded):
        async with bench.cache.lease(bench.version(1, footprint=2 * BIG)):
            pass

    assert bench.cache.used == 0
    assert bench.cache.residents() == []


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (RuntimeError("secret path"), ModelFailed),
        (MemoryError(), Overloaded),
        (InvalidInput("say it right"), InvalidInput),
    ],
)
async def test_a_load_that_fails_is_typed_costs_nothing_and_can_be_repeated(
    tmp_path: Path, failure: Exception, expected: type[ServiceError]
) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    bench.failure = failure
    with pytest.raises(expected) as caught:
        async with bench.cache.lease(version):
            pass
    assert "secret" not in caught.value.message
    assert bench.cache.used == 0
    bench.failure = None

    async with bench.cache.lease(version) as resident:
        assert resident.memory_bytes >= BIG


async def test_a_caller_that_gives_up_does_not_take_the_load_from_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    bench.gate.clear()

    async def use() -> str:
        async with bench.cache.lease(version) as resident:
            return resident.version.name

    impatient, patient = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    impatient.cancel()
    bench.gate.set()

    assert await patient == version.name
    assert bench.loaded == [version.name]


async def test_discard_lets_go_of_what_nobody_uses(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    async with bench.cache.lease(version) as resident:
        bench.cache.discard(version.name)
        assert not resident.model.closed  # type: ignore[attr-defined]

    bench.cache.discard(version.name)

    assert resident.model.closed  # type: ignore[attr-defined]
    assert bench.cache.used == 0
    assert bench.cache.try_lease(version.name) is None
