"""Calls on a stream whose other side reads all and answers nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.api_gateway.upstream.call_groups import FULL_MEMBERS, CallForm
from services.api_gateway.upstream.call_stream import UNDER_WAY_SECONDS, CallStream
from services.api_gateway.upstream.replies import GroupReply, ModelReply
from services.chassis.context import CallContext
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import DeadlinePassed, ServiceError
from tests.fakes.eventually import eventually


class Silent:
    """A router that greets and says nothing more."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []
        # The sizes of the groups of each frame, 1 for a call that travels alone.
        self.sizes: list[list[int]] = []
        self.frames: list[messages.ExchangeRequest] = []
        self.answering = asyncio.Event()
        self.greeted = False
        self._left = False

    def leave(self) -> None:
        """Ends the stream."""
        self._left = True
        self.answering.set()

    async def read(self) -> Any:
        if self.greeted:
            await self.answering.wait()
            self.answering.clear()
            if self._left:
                return grpc.aio.EOF
        self.greeted = True
        return messages.ExchangeResponse()

    async def write(self, frame: bytes) -> None:
        read = messages.ExchangeRequest.FromString(frame)
        self.frames.append(read)
        self.cancelled += read.cancelled
        self.sizes.append([1] * len(read.calls) + [len(group.ids) for group in read.groups])

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be told."""


@pytest.fixture
def router() -> Silent:
    return Silent()


@pytest.fixture
async def stream(router: Silent, request: pytest.FixtureRequest) -> AsyncIterator[CallStream]:
    async def connect() -> Silent:
        return router

    seconds = getattr(request, "param", UNDER_WAY_SECONDS)
    calls = CallStream(connect, under_way_seconds=seconds)
    running = asyncio.create_task(calls.run())
    await calls.wait_open(5)
    yield calls
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Waiting:
    """A caller that waits for its end."""

    def __init__(self) -> None:
        self.end: asyncio.Future[ModelReply | ServiceError] = (
            asyncio.get_running_loop().create_future()
        )

    def replied(self, reply: ModelReply) -> None:
        self.end.set_result(reply)

    def replied_in_group(self, group: GroupReply, index: int) -> None:
        self.end.set_result(group.of(index))

    def failed(self, error: ServiceError) -> None:
        self.end.set_result(error)


async def ended(stream: CallStream, seconds: float) -> tuple[int, float, object]:
    """The id of a call, after how many seconds it ended, and with what."""
    waiting = Waiting()
    started = time.monotonic()
    id = stream.send(messages.Call(), work_pb2.WorkItem(), "token", seconds, waiting)
    result = await asyncio.wait_for(waiting.end, 10)
    return id, time.monotonic() - started, result


async def test_each_call_ends_at_its_own_deadline_and_the_router_is_told(
    router: Silent, stream: CallStream
) -> None:
    limits = [0.3, 0.05, 0.15]

    calls = await asyncio.gather(*(ended(stream, seconds) for seconds in limits))

    for (_, took, result), seconds in zip(calls, limits, strict=True):
        assert isinstance(result, DeadlinePassed)
        assert seconds <= took < seconds + 1.0
    await eventually(lambda: len(router.cancelled) == 3)
    assert router.cancelled == [calls[1][0], calls[2][0], calls[0][0]]


async def test_deadlines_are_kept_again_after_nothing_was_waited_for(stream: CallStream) -> None:
    for _ in range(3):
        await ended(stream, 0.01)

    _, _, result = await ended(stream, 0.01)

    assert isinstance(result, DeadlinePassed)


FORM = CallForm("iris", "", work_pb2.WorkItem())
RARE = CallForm("rare", "", work_pb2.WorkItem())
# So long that only an answer ends the time for which a frame counts as under way.
only_answers = pytest.mark.parametrize("stream", [60.0], indirect=True)


def send_members(stream: CallStream, count: int, form: CallForm = FORM, token: str = "ada") -> int:
    """Sends calls; returns the id of the last."""
    for _ in range(count):
        id = stream.send_member(form, [], CallContext("m", "r", token=token), 30, Waiting())
    return id


@only_answers
async def test_what_joins_waits_for_an_answer_but_a_full_group_goes_at_once(
    router: Silent, stream: CallStream
) -> None:
    send_members(stream, 1)
    await eventually(lambda: router.sizes == [[1]])
    send_members(stream, 2 * FULL_MEMBERS + 3)
    await eventually(lambda: len(router.sizes) == 2)
    send_members(stream, FULL_MEMBERS - 3)
    await eventually(lambda: len(router.sizes) == 3)
    send_members(stream, 2)
    assert router.sizes == [[1], [FULL_MEMBERS, FULL_MEMBERS], [FULL_MEMBERS]]
    router.answering.set()
    await eventually(lambda: len(router.sizes) == 4)

    assert router.sizes[3] == [2]


@only_answers
async def test_a_full_group_takes_its_credential_along_and_no_cancellation_of_a_waiting_call(
    router: Silent, stream: CallStream
) -> None:
    send_members(stream, 1)
    await eventually(lambda: len(router.frames) == 1)
    joined = send_members(stream, 1, RARE)
    alone = stream.send(messages.Call(), work_pb2.WorkItem(), "ada", 30, Waiting())
    stream.forget(joined)
    stream.forget(alone)

    for count in (2, 3):
        send_members(stream, FULL_MEMBERS, token="bob")
        await eventually(lambda count=count: len(router.frames) == count)
    router.answering.set()
    await eventually(lambda: len(router.frames) == 4)

    _, full, again, rest = router.frames
    assert [given.token for given in full.credentials] == ["bob"]
    assert full.groups[0].credential == full.credentials[0].id
    assert not (full.calls or full.cancelled or again.credentials)
    assert sorted(call.id for call in rest.calls) == [joined, alone] == list(rest.cancelled)


async def test_what_waits_for_a_lost_stream_does_not_go_on_the_next() -> None:
    routers = [Silent(), Silent()]
    opened = iter(routers)

    async def connect() -> Silent:
        return next(opened)

    stream = CallStream(connect, under_way_seconds=60)
    running = asyncio.create_task(stream.run())
    await stream.wait_open(5)
    send_members(stream, 1)
    await eventually(lambda: routers[0].sizes == [[1]])
    send_members(stream, 2)
    routers[0].leave()
    await eventually(lambda: stream.is_open and len(stream.problem) == 0 and routers[1].greeted)
    id = send_members(stream, 1, token="bob")
    await eventually(lambda: len(routers[1].frames) == 1)

    assert [call.id for call in routers[1].frames[0].calls] == [id]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
