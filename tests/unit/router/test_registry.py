"""The fleet's memory: who is there, who has gone silent, who answers what."""

from __future__ import annotations

from services.router.fleet.registry import READY, FleetRegistry
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router

KEY = "default/iris/1/any"


def advertised(name: str = "a", instance: str = "a1") -> router.Runtime:
    return router.Runtime(name=f"runtimes/{name}", instance=instance, slots=2)


def ready_report() -> messages.Report:
    return messages.Report(models=[router.ServedModel(key=KEY, state=READY)], in_flight=1)


def test_a_report_makes_a_key_ready_and_a_detachment_undoes_it() -> None:
    fleet = FleetRegistry(8, 30)
    fleet.advertise(advertised(), 0.0)
    assert not fleet.ready(KEY)

    fleet.report("a1", ready_report(), 1.0)
    assert fleet.ready(KEY)

    fleet.detach("a1")
    assert not fleet.ready(KEY)


def test_silence_makes_stale_then_gone() -> None:
    fleet = FleetRegistry(8, 30)
    fleet.advertise(advertised(), 0.0)
    fleet.report("a1", ready_report(), 0.0)

    assert fleet.expire(7.9) == []
    assert fleet.ready(KEY)
    assert fleet.expire(8.0) == []
    assert not fleet.ready(KEY)
    assert fleet.expire(30.0) == ["a1"]
    assert list(fleet.runtimes()) == []


def test_a_word_from_a_stale_runtime_brings_it_back() -> None:
    fleet = FleetRegistry(8, 30)
    fleet.advertise(advertised(), 0.0)
    fleet.expire(10.0)

    fleet.report("a1", ready_report(), 11.0)

    assert fleet.ready(KEY)
    assert not next(iter(fleet.runtimes())).stale


def test_a_restarted_runtime_supersedes_its_former_process() -> None:
    fleet = FleetRegistry(8, 30)
    fleet.advertise(advertised(), 0.0)
    fleet.report("a1", ready_report(), 0.0)

    assert fleet.advertise(advertised(instance="a2"), 1.0) == ["a1"]

    assert [runtime.instance for runtime in fleet.runtimes()] == ["a2"]
    assert not fleet.ready(KEY)


def test_a_report_of_an_unknown_runtime_is_ignored() -> None:
    fleet = FleetRegistry(8, 30)

    fleet.report("ghost", ready_report(), 0.0)

    assert not fleet.ready(KEY)
