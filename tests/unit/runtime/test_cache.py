"""Models in memory: one load for many, a bound that holds, and nothing in use is ever closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.runtime.formats.port import Array, Arrays
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.artifacts import ArtifactCache
from services.runtime.models.cache import ModelCache
from services.runtime.models.load_threads import SMALL_BYTES
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import InvalidInput, ModelFailed, Overloaded, ServiceError
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.repository_source import FakeRepository

# Beside such footprints the growth of the process that is measured around a load of nothing does
# not count.
MB = 1 << 20
BIG = 1000 * MB


class Kept:
    """A model that only takes room."""

    device = "cpu"
    streams: frozenset[str] = frozenset()

    def __init__(self, memory_bytes: int, on_close: Callable[[], None] = lambda: None) -> None:
        self.memory_bytes = memory_bytes
        self.closed = False
        self._on_close = on_close

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        assert not self.closed
        return dict(inputs)

    def close(self) -> None:
        self.closed = True
        self._on_close()


class Bench:
    """A cache with everything around it."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.repository = FakeRepository()
        self.registry = CollectorRegistry()
        self.loaded: list[str] = []
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.events: list[str] = []
        artifacts = ArtifactCache(folder, 100 * MB, self.repository.download, fetched=lambda: None)
        self.cache = ModelCache(
            capacity,
            artifacts,
            self,
            RuntimeMetrics(self.registry),
            imported=lambda: self.events.append("imported"),
        )

    def prepare(self, version: repository_pb2.ModelVersion) -> None:
        if "prepare" in version.metadata:
            self.events.append(f"prepare {version.format}")

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> Kept:
        assert "waits" not in version.metadata or self.gate.wait(10)
        self.loaded.append(version.name)
        self.events.append(f"load {version.version}")
        if self.failure is not None:
            raise self.failure
        return Kept(
            int(version.metadata["footprint"]),
            lambda: self.events.append(f"close {version.version}"),
        )

    def version(
        self, number: int, footprint: int = BIG, size: int = 0, **metadata: str
    ) -> repository_pb2.ModelVersion:
        version = models.version("kept", name=f"buckets/default/models/m/versions/{number}")
        version.version = number
        version.metadata.update(metadata, footprint=str(footprint))
        return self.repository.add(version, b"%d" % number + b"x" * size)

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


async def test_a_model_that_nobody_wanted_when_it_was_there_is_loaded_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1, waits="yes")
    bench.gate.clear()
    given_up = asyncio.create_task(bench.cache.lease(version).__aenter__())
    await eventually(lambda: bench.cache.used > 0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    bench.cache.discard(version.name)
    bench.gate.set()
    while bench.cache.used:  # noqa: ASYNC110 - an event would cost the turn that is meant
        await asyncio.sleep(0)

    async with bench.cache.lease(version) as resident:
        resident.model.call("predict", {})

    assert len(bench.loaded) == 2


async def test_the_least_recently_used_model_makes_room_and_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2 * BIG + 500 * MB)
    first, second, third = (bench.version(number) for number in (1, 2, 3))
    kept = {}
    for version in (first, second, first, third):
        async with bench.cache.lease(version) as resident:
            kept[version.name] = resident.model

    assert [resident.version.name for resident, _ in bench.cache.residents()] == [
        first.name,
        third.name,
    ]
    await bench.cache.settled()
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


async def test_a_caller_that_gives_up_does_not_take_the_load_from_the_others(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1, waits="yes")
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
    async with bench.cache.lease(version):
        pass

    bench.cache.discard(version.name)
    await bench.cache.settled()

    assert bench.events == ["imported", "load 1", "close 1"]
    assert bench.cache.used == 0
    assert bench.cache.try_lease(version.name) is None


async def test_what_is_discarded_while_in_use_goes_with_its_last_user(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    async with bench.cache.lease(version) as resident:
        bench.cache.discard(version.name)
        assert bench.cache.try_lease(version.name) is resident
        resident.model.call("predict", {})
    assert bench.cache.used > 0

    bench.cache.release(version.name)
    await bench.cache.settled()

    assert bench.events == ["imported", "load 1", "close 1"]
    assert bench.cache.used == 0


async def test_what_is_wanted_again_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    async with bench.cache.lease(version):
        bench.cache.discard(version.name)
        bench.cache.want(version.name)

    assert [resident.version.name for resident, _ in bench.cache.residents()] == [version.name]


async def test_what_is_discarded_while_it_loads_is_let_go_when_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1, waits="yes")
    bench.gate.clear()

    async def use() -> None:
        async with bench.cache.lease(version):
            pass

    waiting = asyncio.create_task(use())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bench.cache.discard(version.name)
    bench.gate.set()

    await eventually(lambda: bench.events == ["imported", "load 1", "close 1"])
    assert bench.cache.used == 0


async def test_who_waits_for_a_load_gets_the_model_even_if_it_is_discarded_meanwhile(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1, waits="yes")
    bench.gate.clear()

    async def use() -> str:
        async with bench.cache.lease(version) as resident:
            assert not resident.model.closed  # type: ignore[attr-defined]
            return resident.version.name

    waiting = [asyncio.create_task(use()) for _ in range(3)]
    await asyncio.sleep(0)
    bench.cache.discard(version.name)
    bench.gate.set()

    assert await asyncio.gather(*waiting) == [version.name] * 3
    await eventually(lambda: bench.events == ["imported", "load 1", "close 1"])


async def test_what_makes_room_is_gone_before_the_next_model_is_loaded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 60 * MB)
    first, second = bench.version(1, footprint=60 * MB), bench.version(2, footprint=1)

    for version in (first, second):
        async with bench.cache.lease(version):
            pass

    assert bench.events == ["imported", "load 1", "close 1", "load 2"]


async def test_a_small_model_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    large, small = bench.version(1, waits="yes", size=SMALL_BYTES), bench.version(2)
    bench.gate.clear()

    async def use(version: repository_pb2.ModelVersion) -> None:
        async with bench.cache.lease(version):
            pass

    loading = asyncio.create_task(use(large))
    await use(small)
    assert bench.loaded == [small.name] and not loading.done()
    bench.gate.set()
    await loading

    assert bench.loaded == [small.name, large.name]


async def test_a_model_that_cannot_be_closed_stands_in_nobodys_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    version = bench.version(1)
    async with bench.cache.lease(version) as resident:
        resident.model._on_close = lambda: 1 / 0  # type: ignore[attr-defined]
    bench.cache.discard(version.name)

    async with bench.cache.lease(version) as again:
        assert again.model is not resident.model


async def test_libraries_are_said_to_be_imported_once_and_never_beside_a_model(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 3 * BIG)
    versions = [bench.version(number, prepare="yes") for number in (1, 2, 3)]
    versions[1].format = "other"

    async with bench.cache.lease(versions[0]), bench.cache.lease(versions[1]):
        pass
    for version in versions[:2]:
        bench.cache.discard(version.name)
    async with bench.cache.lease(versions[2]):
        pass

    assert [event for event in bench.events if not event.startswith("close")] == [
        "prepare kept",
        "imported",
        "load 1",
        "prepare other",
        "load 2",
        "prepare kept",
        "load 3",
    ]
