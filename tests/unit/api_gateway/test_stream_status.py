"""The true status of a call whose last write failed, in whichever order grpc.aio shows the two."""

from __future__ import annotations

from typing import Any

import grpc

from services.api_gateway.upstream.stream_status import StreamStatus

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "no such upload")
OWN = (grpc.StatusCode.INTERNAL, "Internal error from Core")


class FakeCall:
    """A call that has ended, with a status that may still change."""

    def __init__(self, *statuses: tuple[grpc.StatusCode, str]) -> None:
        self.statuses = list(statuses)
        self.looks = 0
        self.done: Any = None

    def add_done_callback(self, done: Any) -> None:
        self.done = done

    async def code(self) -> grpc.StatusCode:
        self.looks += 1
        return self.statuses[min(self.looks, len(self.statuses)) - 1][0]

    async def details(self) -> str:
        return self.statuses[min(self.looks, len(self.statuses)) - 1][1]

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(("x", "y"))


def seen(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


async def test_a_status_of_the_upstream_is_left_as_it_is() -> None:
    error = seen(grpc.StatusCode.INTERNAL, "internal error")

    assert await StreamStatus(FakeCall()).actual(error) is error


async def test_a_status_that_was_overwritten_is_remembered() -> None:
    call = FakeCall(NOT_FOUND, OWN)
    status = StreamStatus(call)
    call.done(call)

    error = await status.actual(seen(*OWN))

    assert (error.code(), error.details()) == NOT_FOUND
    assert tuple(error.trailing_metadata()) == (("x", "y"),)


async def test_a_status_that_comes_later_is_waited_for() -> None:
    call = FakeCall(OWN, OWN, OWN, NOT_FOUND)
    status = StreamStatus(call)
    call.done(call)

    assert (await status.actual(seen(*OWN))).code() is grpc.StatusCode.NOT_FOUND


async def test_a_failure_without_a_status_of_the_upstream_stays_one() -> None:
    status = StreamStatus(FakeCall(OWN))
    error = seen(*OWN)

    assert await status.actual(error) is error
