"""What becomes of a call on its way to a queue."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from services.router.calls.invocations import Invocations
from services.router.calls.statistics import Statistics
from services.router.naming.directory import FormerVersions
from services.router.naming.target import ModelTarget
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import serving_pb2, tensor_pb2
from stellwerk.wire.errors import NotImplementedHere, TooLarge
from stellwerk.wire.names import ModelName

KEY = "default/m/1/any"


class Submitted:
    """A dispatcher that keeps what it is given."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    def submit(self, key: str, item: work_pb2.WorkItem, *, deadline: float, **_: Any) -> str:
        self.deadlines.append(deadline)
        return "1"


def sending(target: ModelTarget, work: work_pb2.WorkItem, seconds: float = 10.0) -> list[float]:
    """Sends the work to a target that is known and ready; how many seconds it was given."""
    directory: Any = SimpleNamespace(known=lambda _: target, former_versions=FormerVersions())
    replica = SimpleNamespace(key=KEY, kept=True)
    registry = SimpleNamespace(slots=lambda key: int(key == KEY))
    reconciler: Any = SimpleNamespace(registry=registry, desire=lambda *_: replica)
    dispatcher: Any = Submitted()
    invocations = Invocations(directory, reconciler, dispatcher, Statistics(), max_input_bytes=100)
    now = time.monotonic()
    invocation: Any = SimpleNamespace(
        work=work, deadline=now + seconds, target=None, id="", on_reply=lambda _: None
    )

    assert invocations.send_if_ready(invocation, ModelName("default", "m"))

    assert (invocation.target, invocation.id) == (target, "1")
    return [deadline - now for deadline in dispatcher.deadlines]


def target(**serving: Any) -> ModelTarget:
    return ModelTarget(
        repository.ModelVersion(name="v", serving=serving_pb2.ServingPolicy(**serving))
    )


@pytest.mark.parametrize(("asked", "given"), [(10.0, 0.5), (0.2, 0.2)])
def test_the_owners_timeout_only_shortens(asked: float, given: float) -> None:
    (seconds,) = sending(target(default_timeout_ms=500), work_pb2.WorkItem(), asked)

    assert seconds == pytest.approx(given, abs=0.05)


def test_without_an_owners_timeout_the_callers_counts() -> None:
    assert sending(target(), work_pb2.WorkItem(), 7.0) == [pytest.approx(7.0)]


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    tensor = tensor_pb2.Tensor(name="x", datatype="none", data=bytes(101))

    with pytest.raises(TooLarge):
        sending(target(), work_pb2.WorkItem(inputs=[tensor]))


def test_a_decoupled_method_is_only_for_streams() -> None:
    decoupled = ModelTarget(
        repository.ModelVersion(
            name="v", signature=[tensor_pb2.MethodSignature(method="count", decoupled=True)]
        )
    )

    with pytest.raises(NotImplementedHere):
        sending(decoupled, work_pb2.WorkItem(method="count"))
    assert len(sending(decoupled, work_pb2.WorkItem(method="count", stream=True))) == 1
