"""What becomes of a call on its way to a queue."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
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
from stellwerk.wire.errors import (
    InvalidInput,
    ModelFailed,
    NotImplementedHere,
    TooLarge,
    to_work_error,
)
from stellwerk.wire.names import ModelName
from tests.fakes.eventually import eventually

KEY = "default/m/1/any"


class Submitted:
    """A dispatcher that keeps what it is given, and a fleet that answers `KEY`."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []
        self.handlers: list[Any] = []
        self.cancelled: list[str] = []
        self.statistics = Statistics()

    def submit(
        self, key: str, item: work_pb2.WorkItem, *, deadline: float, on_reply: Any, **_: Any
    ) -> str:
        assert key == KEY
        self.deadlines.append(deadline)
        self.handlers.append(on_reply)
        return str(len(self.deadlines))

    def cancel(self, id: str) -> None:
        self.cancelled.append(id)

    def invocations(self, target: ModelTarget) -> Invocations:
        """Those of one target, which is known and served."""
        directory: Any = SimpleNamespace(known=lambda _: target, former_versions=FormerVersions())
        replica = SimpleNamespace(key=KEY, kept=True)
        registry = SimpleNamespace(slots=Counter([KEY]))
        reconciler: Any = SimpleNamespace(
            registry=registry, desire=lambda *_: replica, make_ready=_at_once
        )
        dispatcher: Any = self
        return Invocations(directory, reconciler, dispatcher, self.statistics, max_input_bytes=100)


async def _at_once(*_: Any) -> None: ...


def sending(target: ModelTarget, work: work_pb2.WorkItem, seconds: float = 10.0) -> list[float]:
    """Sends the work to a target that is known and ready; how many seconds it was given."""
    dispatcher = Submitted()
    now = time.monotonic()
    invocation: Any = SimpleNamespace(
        work=work, deadline=now + seconds, target=None, id="", on_reply=lambda _: None
    )

    assert dispatcher.invocations(target).send_if_ready(invocation, ModelName("default", "m"))

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


async def called(
    dispatcher: Submitted, target: ModelTarget, work: work_pb2.WorkItem
) -> asyncio.Task[work_pb2.WorkReply]:
    """A call that was sent and waits for its reply."""
    task = asyncio.create_task(dispatcher.invocations(target).call(target, work))
    await eventually(lambda: bool(dispatcher.handlers))
    return task


async def test_a_call_returns_the_reply_and_is_counted() -> None:
    dispatcher = Submitted()
    task = await called(dispatcher, target(), work_pb2.WorkItem())

    dispatcher.handlers[0](work_pb2.WorkReply(runtime="a"))

    assert (await task).runtime == "a"
    assert dispatcher.statistics.of("v").oks == 1


async def test_a_call_raises_the_error_in_its_reply_and_is_counted() -> None:
    dispatcher = Submitted()
    task = await called(dispatcher, target(), work_pb2.WorkItem())

    dispatcher.handlers[0](work_pb2.WorkReply(error=to_work_error(ModelFailed("it broke"))))

    with pytest.raises(ModelFailed):
        await task
    assert dispatcher.statistics.of("v").fails == 1


async def test_a_call_whose_caller_goes_away_is_cancelled() -> None:
    dispatcher = Submitted()
    task = await called(dispatcher, target(), work_pb2.WorkItem())

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert dispatcher.cancelled == ["1"]


async def test_a_call_of_a_method_that_does_not_exist_is_no_call_of_the_model() -> None:
    dispatcher = Submitted()
    signed = ModelTarget(
        repository.ModelVersion(name="v", signature=[tensor_pb2.MethodSignature(method="count")])
    )

    with pytest.raises(InvalidInput):
        await dispatcher.invocations(signed).call(signed, work_pb2.WorkItem(method="divide"))

    assert dispatcher.statistics.versions() == []
