"""Placement: every desired replica gets a runtime that suits it, and is told at once when there is
none.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.fleet.placement import (
    DesiredReplica,
    Serve,
    StopServing,
    candidates,
    explain,
    failure,
    plan,
)
from services.router.fleet.registry import FAILED, LOADING, READY, FleetRegistry
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire.errors import NoRuntimeAvailable, RequirementUnmet, UnsafeFormat

IDLE = 60.0
KEY = "default/iris/1/any"


def replica(
    key: str = KEY, requires: Requirements | None = None, **changes: object
) -> DesiredReplica:
    values: dict[str, object] = {"last_used": 100.0, "pending": 0, "format": "skops", **changes}
    version = "buckets/default/models/iris/versions/1"
    return DesiredReplica(
        key=key, model_version=version, requires=requires or Requirements(), **values
    )  # type: ignore[arg-type]


def fleet_of(*runtimes: router.Runtime, now: float = 100.0) -> FleetRegistry:
    fleet = FleetRegistry(stale_seconds=8, gone_seconds=30)
    for runtime in runtimes:
        fleet.advertise(runtime, now)
    return fleet


def runtime(name: str, *models: tuple[str, int], **changes: object) -> router.Runtime:
    values: dict[str, object] = {"formats": ["skops"], "slots": 2, **changes}
    return router.Runtime(
        name=f"runtimes/{name}",
        instance=name,
        models=[router.ServedModel(key=key, state=state) for key, state in models],  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
    )


def actions(fleet: FleetRegistry, *replicas: DesiredReplica, now: float = 100.0) -> list[object]:
    return list(plan({d.key: d for d in replicas}, fleet.members.values(), now, IDLE))


def test_a_new_replica_goes_to_the_least_busy_runtime() -> None:
    wanted = replica()

    planned = actions(fleet_of(runtime("busy", in_flight=2), runtime("free")), wanted)

    assert planned == [Serve("free", wanted)]


def test_a_served_replica_asks_for_nothing() -> None:
    assert actions(fleet_of(runtime("a", (KEY, READY)), runtime("b")), replica()) == []


def test_loading_counts_as_served() -> None:
    assert actions(fleet_of(runtime("a", (KEY, LOADING)), runtime("b")), replica()) == []


def test_an_order_is_not_repeated_until_it_lapses() -> None:
    fleet = fleet_of(runtime("a"))
    fleet.members["a"].ordered[KEY] = 100.0

    assert actions(fleet, replica(), now=101.0) == []
    assert len(actions(fleet, replica(), now=111.0)) == 1


def test_piled_up_requests_ask_for_another_replica() -> None:
    fleet = fleet_of(runtime("a", (KEY, READY)), runtime("b"))

    assert actions(fleet, replica(pending=16)) == []
    assert [action.instance for action in actions(fleet, replica(pending=200))] == ["b"]  # type: ignore[attr-defined]


def test_a_stale_or_draining_runtime_is_replaced() -> None:
    fleet = fleet_of(runtime("a", (KEY, READY)), now=90.0)
    fleet.advertise(runtime("b"), 100.0)
    fleet.expire(100.0)
    assert [action.instance for action in actions(fleet, replica())] == ["b"]  # type: ignore[attr-defined]

    fleet.report("a", messages.Report(draining=True), 100.0)
    assert [action.instance for action in actions(fleet, replica())] == ["b"]  # type: ignore[attr-defined]


def test_what_nobody_uses_is_let_go() -> None:
    fleet = fleet_of(runtime("a", (KEY, READY)))

    assert actions(fleet, replica(last_used=0.0)) == [StopServing("a", KEY)]
    assert actions(fleet, replica(last_used=0.0, pending=1)) == []
    assert actions(fleet) == [StopServing("a", KEY)]


def test_without_runtimes_the_error_says_so() -> None:
    assert isinstance(explain(replica(), []), NoRuntimeAvailable)


def test_the_unmet_requirement_is_named() -> None:
    members = fleet_of(runtime("a", cpu_cores=1), runtime("b", cpu_cores=2)).members.values()

    assert "8 CPU cores" in explain(replica(requires=Requirements(cpu_cores=8)), members).message
    error = explain(replica(format="onnx"), members)
    assert isinstance(error, RequirementUnmet)
    assert "onnx" in error.message


def test_requirements_met_only_by_different_runtimes_are_all_named() -> None:
    members = fleet_of(
        runtime("a", labels={"x": "1"}), runtime("b", labels={"y": "1"})
    ).members.values()

    message = explain(replica(requires=Requirements(labels={"x": "1", "y": "1"})), members).message

    assert "label x=1" in message
    assert "label y=1" in message


def test_a_failure_is_reported_once_nobody_is_trying_any_more() -> None:
    fleet = fleet_of(runtime("a"))
    wanted = replica()
    report = messages.Report(
        models=[
            router.ServedModel(
                key=KEY,
                state=FAILED,
                error_code=9,
                error_reason="UNSAFE_FORMAT",
                error="a pickle is not allowed here",
            )
        ]
    )
    fleet.members["a"].ordered[KEY] = 100.0
    assert failure(wanted, fleet.members.values()) is None

    fleet.report("a", report, 100.5)

    assert isinstance(failure(wanted, fleet.members.values()), UnsafeFormat)
    assert actions(fleet, wanted, now=101.0) == []
    assert len(actions(fleet, wanted, now=106.0)) == 1


@given(
    slots=st.lists(st.integers(1, 8), min_size=0, max_size=6),
    labels=st.lists(st.sampled_from(["west", "east"]), min_size=6, max_size=6),
    pending=st.integers(0, 5000),
)
def test_plan_only_chooses_runtimes_that_suit(
    slots: list[int], labels: list[str], pending: int
) -> None:
    fleet = fleet_of(
        *(
            runtime(f"r{n}", slots=count, labels={"zone": labels[n]})
            for n, count in enumerate(slots)
        )
    )
    wanted = replica(requires=Requirements(labels={"zone": "west"}), pending=pending)

    chosen = [action.instance for action in actions(fleet, wanted) if isinstance(action, Serve)]

    able = {member.instance for member in candidates(wanted, fleet.members.values())}
    assert set(chosen) <= able
    assert len(chosen) == len(set(chosen))
    assert bool(chosen) == bool(able)
