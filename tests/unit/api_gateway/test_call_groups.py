"""Calls that share groups reach the router as the calls that they are, and so do their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api_gateway.upstream.call_groups import FULL_MEMBERS, CallForm, CallGroups
from services.api_gateway.upstream.model_calls import ModelCalls
from services.api_gateway.upstream.replies import ModelReply
from services.chassis.context import CallContext
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import columns
from stellwerk.wire.errors import InvalidInput, ServiceError, to_work_error
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.tensors import join_bytes
from tests.fakes.eventually import eventually
from tests.fakes.exchange import calls_of


@dataclass(frozen=True)
class Asked:
    """What a test's caller sends."""

    model: str
    version: str
    token: str
    peer: str
    traceparent: str
    method: str
    rows: int
    texts: bool
    seconds: float
    cancelled: bool
    outcome: str


ASKED = st.builds(
    Asked,
    model=st.sampled_from(["iris", "team:iris"]),
    version=st.sampled_from(["", "3"]),
    token=st.sampled_from(["ada", "bob"]),
    peer=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    traceparent=st.sampled_from(["", "00-1-1-01"]),
    method=st.sampled_from(["predict", "predict_proba"]),
    rows=st.integers(1, 2),
    texts=st.booleans(),
    seconds=st.sampled_from([5.0, 7.0]),
    cancelled=st.booleans(),
    outcome=st.sampled_from(["answer", "answer", "answer", "error"]),
)


class Router:
    """A router that keeps what it gets, and answers when and as it is told."""

    def __init__(self) -> None:
        self.frames: list[messages.ExchangeRequest] = []
        self._out: asyncio.Queue[messages.ExchangeResponse] = asyncio.Queue()
        self._out.put_nowait(messages.ExchangeResponse())

    async def read(self) -> messages.ExchangeResponse:
        return await self._out.get()

    async def write(self, frame: bytes) -> None:
        self.frames.append(messages.ExchangeRequest.FromString(frame))
        self.say(messages.ExchangeResponse())  # as an answer to others would: the next may go

    def calls(self) -> list[messages.Call]:
        return [call for frame in self.frames for call in [*frame.calls, *calls_of(frame)]]

    def say(self, frame: messages.ExchangeResponse) -> None:
        self._out.put_nowait(frame)

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be told."""


def request_of(asked: Asked, number: int) -> InferRequest:
    work = work_pb2.WorkItem(method=asked.method, outputs=["y"])
    if asked.texts:
        data = join_bytes([b"%d" % number] * asked.rows)
        work.inputs.add(name="t", datatype="BYTES", shape=[asked.rows], data=data)
    else:
        data = number.to_bytes(4, "little") * asked.rows
        work.inputs.add(name="x", datatype="UINT32", shape=[asked.rows], data=data)
        work.inputs.add(name="w", datatype="UINT8", shape=[asked.rows, 1], data=data[: asked.rows])
    return InferRequest(asked.model, asked.version, "", work)


def reply_to(call: messages.Call, outcome: str) -> work_pb2.WorkReply:
    if outcome == "error":
        return work_pb2.WorkReply(error=to_work_error(InvalidInput("not like this")))
    reply = work_pb2.WorkReply(runtime="r")
    [first, *_] = call.work.inputs
    reply.outputs.add(name="y", datatype=first.datatype, shape=first.shape, data=first.data)
    texts = join_bytes([call.request_id.encode()])
    reply.outputs.add(name="label", datatype="BYTES", shape=[1], data=texts)
    return reply


def joined(replies: Sequence[work_pb2.WorkReply]) -> work_pb2.WorkReply:
    whole = work_pb2.WorkReply()
    whole.CopyFrom(replies[0])
    for index, output in enumerate(whole.outputs):
        output.data = b"".join(reply.outputs[index].data for reply in replies)
    return whole


async def outcome_of(calls: ModelCalls, asked: Asked, number: int) -> Any:
    call = CallContext(
        "m", f"r{number}", asked.peer, asked.traceparent, token=asked.token,
        deadline=asyncio.get_running_loop().time() + asked.seconds,
    )  # fmt: skip
    try:
        return await calls.call(request_of(asked, number), call)
    except ServiceError as error:
        return error


async def answers_of(given: list[Asked], cut: int) -> tuple[list[messages.Call], list[Any]]:
    """Sends the calls; returns them as the router reads them, and what each caller got. Answers
    groups of at most `cut` calls at once.
    """
    router = Router()

    async def connect() -> Router:
        return router

    calls = ModelCalls(connect)
    running = asyncio.create_task(calls.small.run())
    await calls.small.wait_open(5)
    tasks = [asyncio.create_task(outcome_of(calls, asked, n)) for n, asked in enumerate(given)]
    await eventually(lambda: len(router.calls()) == len(given))
    seen = router.calls()
    for task, asked in zip(tasks, given, strict=True):
        if asked.cancelled:
            task.cancel()
    await asyncio.sleep(0)
    # Answers of one form and outcome go together, whatever groups the calls came in.
    by_form: dict[Any, list[messages.Call]] = {}
    for call in seen:
        outcome = given[int(call.request_id[1:])].outcome
        by_form.setdefault((columns.form_of(call.work), outcome), []).append(call)
    for (_, outcome), alike in by_form.items():
        for start in range(0, len(alike), cut):
            part = alike[start : start + cut]
            group = messages.AnswerGroup(
                ids=[call.id for call in part],
                model_version="v",
                reply=joined([reply_to(call, outcome) for call in part]),
            )
            router.say(messages.ExchangeResponse(groups=[group]))
    got = await asyncio.gather(*tasks, return_exceptions=True)
    if any(asked.cancelled for asked in given):
        await eventually(lambda: any(frame.cancelled for frame in router.frames))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    told = {id for frame in router.frames for id in frame.cancelled}
    left = {call.id for call in seen if given[int(call.request_id[1:])].cancelled}
    assert told == left
    return seen, got


@settings(max_examples=60, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=24), st.integers(1, 8))
def test_calls_in_groups_are_the_calls_that_were_made(given: list[Asked], cut: int) -> None:
    seen, got = asyncio.run(answers_of(given, cut))

    by_number = {int(call.request_id[1:]): call for call in seen}
    for number, asked in enumerate(given):
        call = by_number[number]
        assert call.work == request_of(asked, number).work
        assert (call.model, call.version) == (asked.model, asked.version)
        assert (call.peer, call.traceparent) == (asked.peer, asked.traceparent)
        assert abs(call.timeout_ms / 1000 - asked.seconds) < 1
    credentials = {(given[n].token, call.credential) for n, call in by_number.items()}
    assert len(credentials) == len({asked.token for asked in given})
    for number, asked in enumerate(given):
        outcome = got[number]
        if asked.cancelled:
            assert isinstance(outcome, asyncio.CancelledError)
        elif asked.outcome == "error":
            assert isinstance(outcome, InvalidInput)
        else:
            assert isinstance(outcome, ModelReply)
            expected = reply_to(by_number[number], "answer").outputs
            assert list(outcome.outputs) == list(expected)


async def test_more_calls_than_a_group_holds_go_in_several() -> None:
    asked = Asked("iris", "", "ada", "p", "", "predict", 1, False, 5.0, False, "answer")

    seen, got = await answers_of([asked] * (2 * columns.MAX_MEMBERS + 7), 100)

    assert len(seen) == len(got) == 2 * columns.MAX_MEMBERS + 7
    assert all(isinstance(outcome, ModelReply) for outcome in got)


@pytest.mark.parametrize("data", [b"", bytes(7)])
async def test_an_answer_that_cannot_be_shared_out_is_an_error_for_all(data: bytes) -> None:
    router = Router()

    async def connect() -> Router:
        return router

    calls = ModelCalls(connect)
    running = asyncio.create_task(calls.small.run())
    await calls.small.wait_open(5)
    asked = Asked("iris", "", "ada", "p", "", "predict", 1, False, 5.0, False, "answer")
    tasks = [asyncio.create_task(outcome_of(calls, asked, number)) for number in range(2)]
    await eventually(lambda: any(frame.groups for frame in router.frames))
    [group] = [group for frame in router.frames for group in frame.groups]
    reply = work_pb2.WorkReply()
    reply.outputs.add(name="y", datatype="BYTES", shape=[1], data=data)
    answer = messages.AnswerGroup(ids=group.ids, reply=reply)
    router.say(messages.ExchangeResponse(groups=[answer]))

    got = await asyncio.gather(*tasks)

    assert [error.reason for error in got] == ["INTERNAL", "INTERNAL"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_call_that_lies_about_its_size_joins_nobodys_group() -> None:
    router = Router()

    async def connect() -> Router:
        return router

    calls = ModelCalls(connect)
    running = asyncio.create_task(calls.small.run())
    await calls.small.wait_open(5)
    asked = Asked("iris", "", "ada", "p", "", "predict", 1, False, 0.3, False, "answer")
    call = CallContext("m", "r", token="ada", deadline=asyncio.get_running_loop().time() + 0.3)
    lying = request_of(asked, 9)
    lying.work.inputs[0].data += b"x"
    tasks = [asyncio.create_task(outcome_of(calls, asked, number)) for number in range(2)]
    tasks.append(asyncio.create_task(calls.call(lying, call)))

    await eventually(lambda: len(router.calls()) == 3)

    [group] = [group for frame in router.frames for group in frame.groups]
    assert len(group.ids) == 2
    assert [call.work for frame in router.frames for call in frame.calls] == [lying.work]
    await asyncio.gather(*tasks, return_exceptions=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def fields(groups: CallGroups) -> messages.ExchangeRequest:
    return messages.ExchangeRequest.FromString(b"".join(groups.take()))


def put(groups: CallGroups, form: CallForm, ids: Sequence[int], size: int = 0) -> None:
    data = [bytes(size)] * len(form.work.inputs)
    for id in ids:
        groups.put(form, 1, data, id, 1, CallContext("m", "r"))


def test_full_groups_do_not_pass_over_one_that_waits_and_a_frame_has_its_limits() -> None:
    groups = CallGroups(2 * FULL_MEMBERS, 1024 * 1024)
    put(groups, CallForm("rare", "", work_pb2.WorkItem()), [1])
    put(groups, CallForm("iris", "", work_pb2.WorkItem()), range(2, 2 + 5 * FULL_MEMBERS))

    frames = [fields(groups) for _ in range(4)]

    assert [[call.id for call in frame.calls] for frame in frames] == [[1], [], [], []]
    # A frame ends with the group that reaches the limit.
    assert [len(frame.groups) for frame in frames] == [2, 2, 1, 0]


def test_a_group_is_full_by_its_bytes_too() -> None:
    work = work_pb2.WorkItem()
    work.inputs.add(name="x", datatype="UINT8", shape=[100 * 1024])
    groups = CallGroups(256, 400 * 1024)
    put(groups, CallForm("iris", "", work), range(1, 8), size=100 * 1024)

    assert [len(group.ids) for group in groups.full] == [3, 3]
    assert [len(fields(groups).groups) for _ in range(3)] == [1, 1, 0]
