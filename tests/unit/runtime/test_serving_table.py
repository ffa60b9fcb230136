"""The table of what is served: how keys come up, fail, wait for a peer that restarts, and go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.runtime.fleet.serving_table import ServingTable
from services.runtime.formats.port import Array, Arrays, LoadedModel
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.artifacts import ArtifactCache
from services.runtime.models.cache import ModelCache
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import BrokerDown, ServiceError, Unavailable, UnsafeFormat
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.log import FakeLog
from tests.fakes.repository_source import FakeRepository

READY = router_pb2.ServedModel.STATE_READY
FAILED = router_pb2.ServedModel.STATE_FAILED
LOADING = router_pb2.ServedModel.STATE_LOADING


class Nothing(LoadedModel):
    """A model that does nothing."""

    device = "cpu"
    memory_bytes = 1 << 20

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        return {}

    def close(self) -> None: ...


class NothingLoader:
    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> Nothing:
        return Nothing()


class FakeIntake:
    """Notes which queues are consumed."""

    def __init__(self) -> None:
        self.open_keys: list[str] = []
        self.failure: ServiceError | None = None

    async def open(self, key: str, version: repository_pb2.ModelVersion) -> Any:
        if self.failure is not None:
            raise self.failure
        self.open_keys.append(key)
        return FakeConsumer(self, key)


class FakeConsumer:
    def __init__(self, intake: FakeIntake, key: str) -> None:
        self._intake, self._key = intake, key

    async def cancel(self) -> None:
        self._intake.open_keys.remove(self._key)


class Bench:
    """A table with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.repository = FakeRepository()
        self.intake = FakeIntake()
        self.changes = 0
        self.pauses: list[float] = []
        self.check_failure: ServiceError | None = None
        artifacts = ArtifactCache(folder, 1 << 20, self.repository.download, fetched=lambda: None)
        self.cache = ModelCache(
            1 << 33, artifacts, NothingLoader(), RuntimeMetrics(CollectorRegistry())
        )
        self.table = ServingTable(
            self.repository,
            self._check,
            self.cache,
            self.intake,
            changed=self._changed,
            log=FakeLog(),
            sleep=self._sleep,
        )

    async def _check(self, version: repository_pb2.ModelVersion) -> None:
        if self.check_failure is not None:
            raise self.check_failure

    def _changed(self) -> None:
        self.changes += 1

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def add(self, number: int = 1) -> str:
        name = f"buckets/default/models/m/versions/{number}"
        self.repository.add(models.version("nothing", name=name), b"x")
        return name

    def state(self, key: str = "k") -> int:
        return {model.key: model.state for model in self.table.models()}[key]

    async def settled(self, key: str = "k") -> router_pb2.ServedModel:
        await eventually(lambda: self.state(key) != LOADING)
        return next(model for model in self.table.models() if model.key == key)


async def test_a_key_is_loading_then_ready_and_its_queue_is_consumed_only_then(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    bench.repository.gate.clear()
    bench.table.serve("k", name)
    await eventually(lambda: bench.repository.downloads == [name])
    assert bench.state() == LOADING and bench.intake.open_keys == []
    bench.repository.gate.set()

    served = await bench.settled()

    assert served.state == READY and served.memory_bytes >= 1 << 20
    assert bench.intake.open_keys == ["k"]
    assert bench.changes == 2


async def test_asking_twice_serves_once_and_reports_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    bench.table.serve("k", name)
    bench.table.serve("k", name)
    await bench.settled()
    before = bench.changes

    bench.table.serve("k", name)

    assert bench.intake.open_keys == ["k"]
    assert bench.changes == before + 1


async def test_a_failure_is_reported_with_its_code_and_can_be_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    bench.check_failure = UnsafeFormat("no pickles here")
    bench.table.serve("k", name)
    served = await bench.settled()
    assert (served.state, served.error_reason, served.error, served.error_code) == (
        FAILED,
        "UNSAFE_FORMAT",
        "no pickles here",
        9,
    )
    bench.check_failure = None

    bench.table.serve("k", name)

    assert (await bench.settled()).state == READY


async def test_a_version_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.table.serve("k", "buckets/default/models/m/versions/9")

    assert (await bench.settled()).error_reason == "VERSION_NOT_FOUND"


async def test_a_peer_that_restarts_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    bench.repository.failures = [Unavailable("restarting"), BrokerDown("restarting")]
    bench.table.serve("k", name)

    assert (await bench.settled()).state == READY
    assert bench.pauses == [0.2, 0.5]


async def test_patience_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.intake.failure = BrokerDown("the broker is away")
    bench.table.serve("k", bench.add())

    assert (await bench.settled()).error_reason == "BROKER_DOWN"
    assert len(bench.pauses) == 5


async def test_stopping_lets_the_model_go_unless_another_key_serves_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    for key in ("a", "b"):
        bench.table.serve(key, name)
        await bench.settled(key)

    await bench.table.stop("a")
    assert bench.intake.open_keys == ["b"] and len(bench.cache.residents()) == 1
    await bench.table.stop("b")

    assert bench.intake.open_keys == [] and bench.cache.residents() == []
    assert bench.table.models() == []
    await bench.table.stop("never served")


async def test_stopping_while_it_loads_leaves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    name = bench.add()
    bench.repository.gate.clear()
    bench.table.serve("k", name)
    await eventually(lambda: bench.repository.downloads == [name])

    await bench.table.stop("k")
    bench.repository.gate.set()

    assert bench.table.models() == [] and bench.intake.open_keys == []


async def test_a_drained_table_consumes_nothing_and_takes_nothing_new(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.table.serve("k", bench.add(1))
    await bench.settled()

    await bench.table.drain()
    bench.table.serve("new", bench.add(2))

    assert bench.table.draining
    assert bench.intake.open_keys == []
    assert [model.key for model in bench.table.models()] == ["k"]


@pytest.mark.parametrize("times", [1, 2])
async def test_draining_again_does_no_harm(tmp_path: Path, times: int) -> None:
    bench = Bench(tmp_path)
    bench.table.serve("k", bench.add())
    await bench.settled()

    for _ in range(times):
        await bench.table.drain()

    assert bench.intake.open_keys == []
