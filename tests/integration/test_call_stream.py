"""Calls between a gateway and a router over one stream: real gRPC, real tokens; only what answers
is a fake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from services.api_gateway.upstream.call_stream import open_exchange
from services.api_gateway.upstream.model_calls import LARGE_BYTES, ModelCalls
from services.chassis.context import CallContext
from services.chassis.lifecycle.process import Process
from services.chassis.rpc.channel import ServiceChannel
from services.router.calls.call_log import CallLog
from services.router.calls.exchange_servicer import ExchangeServicer, add_to_server
from services.router.calls.invocations import GroupInvocation, Invocation
from services.router.calls.statistics import Statistics
from services.router.naming.target import ModelTarget
from services.router.queueing.members import GroupWork
from services.router.queueing.pending_requests import Outcome
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import call_service_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    NotPermitted,
    ServiceError,
    Unauthenticated,
    Unavailable,
    to_work_error,
)
from stellwerk.wire.names import ModelName
from stellwerk.wire.open_inference import InferRequest
from tests.fakes.eventually import eventually
from tests.fakes.process import Standalone, standalone


class Model:
    """Stands for everything behind the stream. The work's method says what becomes of it."""

    def __init__(self) -> None:
        self.sent: list[work_pb2.WorkItem] = []
        self.cancelled: list[str] = []
        self.silent: list[Invocation] = []
        self.members: list[Member] = []

    def send_if_ready(self, invocation: Invocation, name: ModelName) -> bool:
        if name.model == "new":
            return False
        invocation.target = ModelTarget(
            repository.ModelVersion(name=f"buckets/{name.bucket}/models/{name.model}/versions/3")
        )
        work, on_reply = invocation.work, invocation.on_reply
        self.sent.append(work)
        if work.method == "refuse":
            raise InvalidInput("not like this")
        loop = asyncio.get_running_loop()
        if work.method == "break":
            raise RuntimeError("a fault of ours, with a secret")
        if work.method == "fail":
            loop.call_soon(
                on_reply, work_pb2.WorkReply(error=to_work_error(ModelFailed("it broke")))
            )
        elif work.method == "count":
            for number in range(3):
                loop.call_soon(
                    on_reply, work_pb2.WorkReply(outputs=work.inputs, queue_ns=number, more=True)
                )
            loop.call_soon(on_reply, work_pb2.WorkReply())
        elif work.method == "silent":
            self.silent.append(invocation)
        else:
            loop.call_soon(on_reply, work_pb2.WorkReply(outputs=work.inputs))
        invocation.id = str(len(self.sent))
        return True

    async def send_when_ready(self, invocation: Invocation, name: ModelName) -> None:
        await asyncio.sleep(0)
        raise ModelNotFound("there is no such model")

    def cancel(self, invocation: Invocation) -> None:
        self.cancelled.append(invocation.id)

    def send_group_if_ready(self, group: GroupInvocation, name: ModelName) -> bool:
        work = group.members()
        members = [Member(group, work, index) for index in group.waiting]
        for member in members:
            if not self.send_if_ready(member, name):
                return False
            group.target = member.target
        group.sent = work
        self.members += members
        return True

    async def send_group_when_ready(self, group: GroupInvocation, name: ModelName) -> None:
        await asyncio.sleep(0)
        raise ModelNotFound("there is no such model")

    def cancel_member(self, group: GroupInvocation, index: int) -> None:
        [member] = [one for one in self.members if one.group is group and one.index == index]
        self.cancel(member)


class Member:
    """A member of a group as an invocation of its own."""

    def __init__(self, group: GroupInvocation, given: GroupWork, index: int) -> None:
        self.group = group
        self._group_reply = given.on_reply
        self.index = index
        self.work = columns.member(given.form, index, len(given.deadlines))
        self.work.context["x-request-id"] = given.request_ids[index]
        self.deadline = given.deadlines[index]
        self.target: ModelTarget | None = None
        self.id = ""

    def on_reply(self, outcome: Outcome, /) -> None:
        self._group_reply([self.index], outcome)


class Rig:
    """A router with a fake inside and a gateway's half of the stream."""

    def __init__(
        self, router: Standalone, model: Model, calls: ModelCalls, servicer: ExchangeServicer
    ) -> None:
        self.router, self.model, self.calls, self.servicer = router, model, calls, servicer
        self.token = router.issuer.token("principals/ada", ("caller", "default"))

    def context(self, seconds: float = 5.0, token: str | None = None) -> CallContext:
        deadline = time.monotonic() + seconds
        return CallContext(
            "m", "r1", token=self.token if token is None else token, deadline=deadline
        )

    async def call(
        self, method: str = "echo", data: bytes = b"1234", seconds: float = 5.0, **ask: Any
    ) -> bytes:
        answered = await self.calls.call(asks(method, data, **ask), self.context(seconds))
        return answered.outputs[0].data


def asks(
    method: str = "echo", data: bytes = b"1234", model: str = "iris", version: str = ""
) -> InferRequest:
    work = work_pb2.WorkItem(method=method)
    work.inputs.add(name="x", datatype="UINT8", shape=[len(data)], data=data)
    return InferRequest(model, version, "", work)


@asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    model = Model()
    built: list[ExchangeServicer] = []

    def build(process: Process) -> None:
        call_log = CallLog(
            process.call_metrics,
            Statistics(),
            process.tracing,
            process.audit_trail.note,
            structlog.get_logger(),
        )
        servicer = ExchangeServicer(model, process.verifier, call_log, structlog.get_logger())  # type: ignore[arg-type]
        built.append(servicer)
        process.on_drain(servicer.drain)
        process.serve(
            call_service_pb2.DESCRIPTOR.services_by_name["CallService"],
            add_to_server,
            servicer,
        )

    async with standalone("router", build) as router:

        async def own_token() -> str:
            return router.issuer.token("services/api_gateway", ("service.api_gateway", "*"))

        channel: Any = ServiceChannel(router.channel(), "router", own_token)
        calls = ModelCalls(open_exchange(channel))
        running = asyncio.create_task(calls.run())
        try:
            await eventually(lambda: not calls.problem)
            yield Rig(router, model, calls, built[0])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await channel.close()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as made:
        yield made


async def test_every_caller_gets_its_own_answer(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.call(data=b"%d" % number) for number in range(1000)))

    assert answers == [b"%d" % number for number in range(1000)]


async def test_calls_of_any_size_come_through(rig: Rig) -> None:
    sizes = [0, 1, LARGE_BYTES + 1, 3 * 1024 * 1024, 700 * 1024, 700 * 1024, 700 * 1024, 5]

    answers = await asyncio.gather(*(rig.call(data=bytes(size)) for size in sizes))

    assert [len(answer) for answer in answers] == sizes


async def test_the_work_says_who_asked_and_under_which_request(rig: Rig) -> None:
    await rig.call()

    assert dict(rig.model.sent[0].context) == {
        "x-request-id": "r1",
        "x-principal": "principals/ada",
    }


async def test_an_answer_says_which_version_gave_it(rig: Rig) -> None:
    answered = await rig.calls.call(asks(), rig.context())

    assert (answered.model_version, answered.final) == (
        "buckets/default/models/iris/versions/3",
        True,
    )


@pytest.mark.parametrize(("method", "error"), [("refuse", InvalidInput), ("fail", ModelFailed)])
async def test_errors_keep_their_class(rig: Rig, method: str, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        await rig.call(method)


async def test_a_fault_of_ours_is_told_without_its_words(rig: Rig) -> None:
    with pytest.raises(ServiceError) as raised:
        await rig.call("break")

    assert raised.value.reason == "INTERNAL"
    assert "secret" not in raised.value.message
    assert await rig.call() == b"1234"


async def test_a_name_that_is_not_known_yet_is_asked_for(rig: Rig) -> None:
    with pytest.raises(ModelNotFound):
        await rig.call(model="new")


@pytest.mark.parametrize("token", ["", "x.y.z"])
async def test_a_call_without_a_good_token_is_refused_and_harms_no_other(
    rig: Rig, token: str
) -> None:
    with pytest.raises(Unauthenticated):
        await rig.calls.call(asks(), rig.context(token=token))

    assert await rig.call() == b"1234"
    assert not [work for work in rig.model.sent if work.context["x-principal"] != "principals/ada"]


async def test_a_token_that_lapses_is_refused_though_it_was_good_before(rig: Rig) -> None:
    token = rig.router.issuer.token("principals/ada", ("caller", "*"))
    await rig.calls.call(asks(), rig.context(token=token))

    rig.router.process.verifier._clock = lambda: (
        time.time() + 631
    )  # it lives for 600 s, the leeway is 30 s

    with pytest.raises(Unauthenticated):
        await rig.calls.call(asks(), rig.context(token=token))


async def test_a_revoked_key_is_refused_at_once(rig: Rig) -> None:
    await rig.call()

    rig.router.process.verifier.trust(rig.router.issuer.bundle(revoked_key_ids=["key1"]))

    with pytest.raises(Unauthenticated):
        await rig.call()


async def test_a_grant_on_one_bucket_is_none_on_another(rig: Rig) -> None:
    with pytest.raises(NotPermitted):
        await rig.call(model="secret:iris")

    assert await rig.call() == b"1234"
    await eventually(
        lambda: any(record.outcome == "NOT_PERMITTED" for record in rig.router.ledger.records)
    )


async def test_a_silent_model_costs_its_caller_no_more_than_the_deadline(rig: Rig) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlinePassed):
        await rig.call("silent", seconds=0.3)

    assert 0.25 < time.monotonic() - started < 0.55
    await eventually(lambda: len(rig.model.cancelled) == 1)


async def test_the_asks_own_timeout_counts_when_it_is_shorter(rig: Rig) -> None:
    ask = asks("silent")
    ask.timeout_us = 200_000
    started = time.monotonic()

    with pytest.raises(DeadlinePassed):
        await rig.calls.call(ask, rig.context())

    assert time.monotonic() - started < 0.45


async def test_who_goes_away_is_not_worked_for(rig: Rig) -> None:
    task = asyncio.create_task(rig.call("silent"))
    await eventually(lambda: len(rig.model.silent) == 1)

    task.cancel()

    await eventually(lambda: rig.model.cancelled == ["1"])
    rig.model.silent[0].on_reply(work_pb2.WorkReply())  # late: nobody is harmed
    assert await rig.call() == b"1234"


async def test_several_answers_come_in_their_order_and_end(rig: Rig) -> None:
    answers = [answer async for answer in rig.calls.stream(asks("count"), rig.context())]

    assert [(len(answer.outputs), answer.final) for answer in answers] == [(1, False)] * 3 + [
        (0, True)
    ]
    assert rig.model.sent[0].stream


async def test_a_stream_that_is_left_is_cancelled(rig: Rig) -> None:
    answers = rig.calls.stream(asks("count"), rig.context())
    await anext(answers)
    await answers.aclose()

    assert await rig.call() == b"1234"


async def test_a_router_that_stops_answers_what_it_has_and_takes_no_more(rig: Rig) -> None:
    task = asyncio.create_task(rig.call("silent"))
    await eventually(lambda: len(rig.model.silent) == 1)
    draining = asyncio.create_task(rig.servicer.drain())
    await asyncio.sleep(0)

    with pytest.raises(Unavailable):
        await rig.call()
    assert not draining.done()
    work = rig.model.sent[0]
    rig.model.silent[0].on_reply(work_pb2.WorkReply(outputs=work.inputs))

    assert await task == b"1234"
    await asyncio.wait_for(draining, 5)


async def test_calls_in_hand_end_when_the_router_is_lost() -> None:
    async with rigged() as rig:
        task = asyncio.create_task(rig.call("silent", seconds=30))
        await eventually(lambda: len(rig.model.silent) == 1)
        rig.router.process.settings.__dict__["drain_seconds"] = 0.0
        rig.router.process.stop()

        with pytest.raises((Unavailable, Cancelled)):
            await asyncio.wait_for(task, 8)
