"""Loading and letting go on request: nobody who waits or asks is failed by it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from services.router.fleet.reconciler import Outgoing, Reconciler
from services.router.fleet.registry import FAILED, LOADING, READY, FleetRegistry
from stellwerk.repository.v1.repository_service_pb2 import ModelVersion
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire.errors import ModelFailed, RequirementUnmet
from tests.fakes.eventually import eventually

MODEL = "buckets/default/models/iris"
VERSION = ModelVersion(name=f"{MODEL}/versions/1", version=1, format="skops")
KEY = "default/iris/1/any"


class Waiting:
    """How many requests wait for an answer, by key."""

    def __init__(self) -> None:
        self.by_key: dict[str, int] = {}

    def count(self, key: str) -> int:
        return self.by_key.get(key, 0)


class Fixture:
    """A reconciler with one runtime "a" whose orders are seen and whose reports a test makes up."""

    def __init__(self) -> None:
        self.fleet = FleetRegistry(stale_seconds=80, gone_seconds=300)
        self.waiting = Waiting()
        pending: Any = self.waiting
        self.reconciler = Reconciler(self.fleet, pending, 1800.0, lambda _: None)
        self.orders: Outgoing = asyncio.Queue()
        runtime = router.Runtime(name="runtimes/a", instance="a", formats=["skops"], slots=1)
        self.fleet.advertise(runtime, time.monotonic())
        self.reconciler.attach("a", self.orders)

    def report(self, *models: tuple[str, int], error: str = "") -> None:
        served = [
            router.ServedModel(
                key=key,
                model_version=VERSION.name,
                state=state,
                error=error,
                error_reason="MODEL_FAILED",
                error_code=9,
            )  # type: ignore[arg-type]
            for key, state in models
        ]
        self.fleet.report("a", messages.Report(models=served), time.monotonic())
        self.reconciler.reconcile()

    def next_order(self) -> tuple[str, str]:
        order = self.orders.get_nowait()
        assert order is not None
        kind = str(order.WhichOneof("message"))
        return kind, getattr(order, kind).key


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def test_load_returns_when_a_runtime_answers() -> None:
    fixture = Fixture()
    load = asyncio.create_task(fixture.reconciler.load(VERSION, soon()))
    await eventually(lambda: not fixture.orders.empty())
    fixture.report((KEY, LOADING))

    assert fixture.next_order() == ("serve", KEY)
    assert not load.done()
    fixture.report((KEY, READY))
    await asyncio.wait_for(load, 5)


async def test_load_of_what_is_loaded_returns_at_once() -> None:
    fixture = Fixture()
    fixture.report((KEY, READY))

    await fixture.reconciler.load(VERSION, soon())

    assert fixture.orders.empty()


async def test_load_tries_again_what_has_just_failed() -> None:
    fixture = Fixture()
    first = asyncio.create_task(fixture.reconciler.load(VERSION, soon()))
    await eventually(lambda: not fixture.orders.empty())
    fixture.next_order()
    fixture.report((KEY, FAILED), error="the artifact is broken")
    with pytest.raises(ModelFailed, match="the artifact is broken"):
        await first

    second = asyncio.create_task(fixture.reconciler.load(VERSION, soon()))
    await eventually(lambda: not fixture.orders.empty())

    assert fixture.next_order() == ("serve", KEY)
    fixture.report((KEY, READY))
    await second


async def test_load_says_why_no_runtime_can() -> None:
    fixture = Fixture()
    other = ModelVersion(name=f"{MODEL}/versions/2", version=2, format="onnx")

    with pytest.raises(RequirementUnmet, match="onnx"):
        await fixture.reconciler.load(other, soon())


async def test_those_who_wait_do_not_keep_each_other_busy() -> None:
    fixture = Fixture()
    loads = [asyncio.create_task(fixture.reconciler.load(VERSION, soon())) for _ in range(3)]
    await eventually(lambda: not fixture.orders.empty())
    fixture.report((KEY, LOADING))
    before = time.process_time()

    await asyncio.wait(loads, timeout=0.3)

    assert time.process_time() - before < 0.1
    fixture.report((KEY, READY))
    await asyncio.gather(*loads)


async def test_unload_lets_every_version_go_and_waits_for_it() -> None:
    fixture = Fixture()
    fixture.reconciler.desire(VERSION, Requirements())
    fixture.report((KEY, READY), ("default/iris/1/abcd", READY))
    unload = asyncio.create_task(fixture.reconciler.unload(MODEL, soon()))
    await eventually(lambda: fixture.orders.qsize() >= 2)

    assert {fixture.next_order(), fixture.next_order()} == {
        ("stop_serving", KEY),
        ("stop_serving", "default/iris/1/abcd"),
    }
    assert not unload.done()
    fixture.report()
    await asyncio.wait_for(unload, 5)
    assert fixture.reconciler.find(KEY) is None


async def test_unload_leaves_models_alone_whose_names_begin_alike() -> None:
    fixture = Fixture()
    fixture.report((KEY, READY))

    await fixture.reconciler.unload(MODEL[:-1], soon())

    assert fixture.orders.empty()


async def test_unload_waits_for_the_answers_to_what_was_asked() -> None:
    fixture = Fixture()
    fixture.reconciler.desire(VERSION, Requirements())
    fixture.report((KEY, READY))
    fixture.waiting.by_key[KEY] = 1
    unload = asyncio.create_task(fixture.reconciler.unload(MODEL, soon()))
    fixture.report((KEY, READY))
    await asyncio.sleep(0)

    assert fixture.orders.empty()
    fixture.waiting.by_key[KEY] = 0
    fixture.report((KEY, READY))
    assert fixture.next_order() == ("stop_serving", KEY)
    fixture.report()
    await asyncio.wait_for(unload, 5)


async def test_a_request_after_unload_has_the_model_loaded_again() -> None:
    fixture = Fixture()
    fixture.reconciler.desire(VERSION, Requirements())
    fixture.report((KEY, READY))
    unload = asyncio.create_task(fixture.reconciler.unload(MODEL, soon()))
    await eventually(lambda: not fixture.orders.empty())
    fixture.next_order()

    fixture.reconciler.desire(VERSION, Requirements())
    fixture.waiting.by_key[KEY] = 1
    fixture.report()

    await asyncio.wait_for(unload, 5)
    assert fixture.next_order() == ("serve", KEY)


async def test_who_waits_for_a_load_is_not_failed_by_an_unload() -> None:
    fixture = Fixture()
    load = asyncio.create_task(fixture.reconciler.load(VERSION, soon()))
    await eventually(lambda: not fixture.orders.empty())
    fixture.next_order()
    fixture.report((KEY, LOADING))

    await fixture.reconciler.unload(MODEL, soon())
    fixture.report()
    orders = [await asyncio.wait_for(fixture.orders.get(), 5)]
    while not (orders[-1] and orders[-1].HasField("serve")):
        orders.append(await asyncio.wait_for(fixture.orders.get(), 5))
    fixture.report((KEY, READY))

    await asyncio.wait_for(load, 5)


async def test_unload_ends_at_its_deadline_though_a_runtime_goes_on() -> None:
    fixture = Fixture()
    fixture.report((KEY, READY))
    began = time.monotonic()

    await fixture.reconciler.unload(MODEL, soon(0.05))

    assert 0.04 < time.monotonic() - began < 2
