"""While a new version is being loaded the one before answers, after a while, and never again once
the new one has.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from services.chassis.broker.port import Message
from services.router.calls.invocations import Invocations
from services.router.calls.statistics import Statistics
from services.router.fleet.reconciler import Reconciler
from services.router.fleet.registry import FAILED, LOADING, READY, FleetRegistry
from services.router.naming.directory import PATIENCE_SECONDS, FormerVersions, ModelDirectory
from services.router.naming.target import ModelTarget
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1 import event_pb2
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire import topology
from stellwerk.wire.names import ModelName

IRIS, FIRST = ModelName("default", "iris"), ModelName("default", "iris", version=1)


def target(number: int) -> ModelTarget:
    return ModelTarget(repository.ModelVersion(version=number))


class Repository:
    """A channel whose one RPC answers with the newest version."""

    def __init__(self) -> None:
        self.newest = 1

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        return self._resolve

    unary_stream = stream_unary = unary_unary

    async def _resolve(self, request: Any, **_: Any) -> repository.ResolveModelVersionResponse:
        number = (
            int(request.name.rpartition("/versions/")[2] or 0)
            if "/versions/" in request.name
            else self.newest
        )
        name = f"{IRIS.parent}/versions/{number}"
        version = repository.ModelVersion(name=name, version=number, format="skops")
        return repository.ResolveModelVersionResponse(model_version=version)


class News:
    """A delivery of an event about the model."""

    redelivered = False

    def __init__(self, routing_key: str) -> None:
        self.routing_key = routing_key
        self.message = Message(event_pb2.Event(resource=IRIS.parent).SerializeToString())

    def ack(self) -> None: ...

    def nack(self, *, requeue: bool) -> None: ...


class Rig:
    """Predictions over one runtime, whose reports a test makes up."""

    def __init__(self) -> None:
        self.repository = Repository()
        self.directory = ModelDirectory(self.repository, 60)
        self.fleet = FleetRegistry(stale_seconds=80, gone_seconds=300)
        nothing: Any = {}.get
        waiting: Any = type("Waiting", (), {"count": lambda *_: 0, "fail_key": nothing})()
        self.reconciler = Reconciler(self.fleet, waiting, 1800.0, lambda _: None)
        self.fleet.advertise(
            router.Runtime(name="runtimes/a", instance="a", formats=["skops"], slots=1), 0.0
        )
        self.reconciler.attach("a", asyncio.Queue())
        dispatcher: Any = SimpleNamespace(submit=lambda *_, **__: "1")
        self.invocations = Invocations(
            self.directory, self.reconciler, dispatcher, Statistics(), 1000
        )

    def report(self, **states: int) -> None:
        """`v1=READY` and so on."""
        models = [
            router.ServedModel(
                key=f"default/iris/{number[1:]}/any",
                model_version=f"{IRIS.parent}/versions/{number[1:]}",
                state=state,  # type: ignore[arg-type]
                error="broken",
                error_reason="MODEL_FAILED",
                error_code=9,
            )
            for number, state in states.items()
        ]
        self.fleet.report("a", messages.Report(models=models), time.monotonic())
        self.reconciler.reconcile()

    async def called(self, name: ModelName = IRIS) -> int:
        """Which version a call is given to now."""
        invocation: Any = SimpleNamespace(
            work=work_pb2.WorkItem(), deadline=0.0, target=None, id="", on_reply=None
        )
        if not self.invocations.send_if_ready(invocation, name):
            return await self._resolved(name)
        return invocation.target.version.version

    async def _resolved(self, name: ModelName) -> int:
        target = await self.invocations.resolve(name)
        target.replica = self.reconciler.desire(target.version, Requirements())
        return target.version.version

    async def store(self, number: int, *, long_ago: bool = True) -> None:
        """A version is stored; so long ago that nobody waits for it any more, or just now."""
        self.repository.newest = number
        await self.directory.on_event(News(topology.VERSION_CREATED))
        change = self.directory.former_versions.of(IRIS)
        if change is not None and long_ago:
            change.since -= PATIENCE_SECONDS


@pytest.fixture
async def rig() -> Rig:
    made = Rig()
    await made.called()
    made.report(v1=READY)
    assert await made.called() == 1
    return made


async def test_the_one_before_answers_until_the_new_one_can(rig: Rig) -> None:
    await rig.store(2)

    assert await rig.called() == 1
    rig.report(v1=READY, v2=LOADING)
    assert await rig.called() == 1
    rig.report(v1=READY, v2=READY)
    assert await rig.called() == 2
    rig.report(v1=READY)
    assert await rig.called() == 2, "once the new one has answered, nothing older does"
    assert not rig.directory.former_versions.changes


async def test_a_call_right_after_the_change_waits_for_the_new_one(rig: Rig) -> None:
    await rig.store(2, long_ago=False)
    call = asyncio.create_task(rig.called())
    await asyncio.sleep(0)
    rig.report(v1=READY, v2=LOADING)
    assert not call.done()

    rig.report(v1=READY, v2=READY)

    assert await call == 2


async def test_a_version_that_cannot_be_loaded_takes_nothing_away(rig: Rig) -> None:
    await rig.store(2)
    await rig.called()

    rig.report(v1=READY, v2=FAILED)

    assert await rig.called() == 1


async def test_of_several_stored_in_a_row_the_newest_that_can_answers(rig: Rig) -> None:
    await rig.store(2)
    await rig.called()
    await rig.store(3)
    assert await rig.called() == 1
    rig.report(v1=READY, v2=READY, v3=LOADING)

    assert await rig.called() == 2


async def test_a_version_asked_for_by_number_has_no_stand_in(rig: Rig) -> None:
    assert await rig.called(FIRST) == 1
    await rig.store(2)

    assert rig.directory.former_versions.of(FIRST) is None


@pytest.mark.parametrize("news", [topology.VERSION_DELETED, topology.MODEL_DELETED])
async def test_what_was_deleted_does_not_answer(rig: Rig, news: str) -> None:
    await rig.store(2)
    await rig.called()

    await rig.directory.on_event(News(news))

    assert not rig.directory.former_versions.changes


def test_patience_ends_for_all_at_once_and_for_each_at_half_its_time() -> None:
    former_versions = FormerVersions()
    former_versions.changed(IRIS, target(0), 100.0)
    change = former_versions.of(IRIS)
    assert change is not None

    assert change.patience(now=100.0, deadline=130.0) == 100.0 + PATIENCE_SECONDS
    assert change.patience(now=100.0, deadline=101.0) == 100.5
    assert change.patience(now=110.0, deadline=140.0) < 110.0


def test_names_and_versions_that_are_kept_are_bounded() -> None:
    former_versions = FormerVersions()
    for number in range(20_000):
        former_versions.changed(ModelName("b", f"m{number}"), target(0), float(number))
    for number in range(100):
        former_versions.changed(IRIS, target(number), float(number))

    change = former_versions.of(IRIS)
    assert change is not None and [former.version.version for former in change.former] == [
        99,
        98,
        97,
        96,
    ]
    assert former_versions.of(ModelName("b", "m1")) is None
