"""The fleet stream from the runtime's side: what is said when, and that it always comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from services.runtime.fleet.attachment import Attachment
from stellwerk.router.v1 import fleet_service_pb2 as fleet_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import Unavailable
from tests.fakes.eventually import eventually
from tests.fakes.log import FakeLog


class FakeStream:
    """One stream as a router sees it."""

    def __init__(self, requests: AsyncIterator[fleet_pb2.AttachRequest]) -> None:
        self.said: list[fleet_pb2.AttachRequest] = []
        self._answers: asyncio.Queue[fleet_pb2.AttachResponse | Exception | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(requests))
        self.cancelled = False

    async def _read(self, requests: AsyncIterator[fleet_pb2.AttachRequest]) -> None:
        async for request in requests:
            self.said.append(request)

    def answer(self, **message: Any) -> None:
        self._answers.put_nowait(fleet_pb2.AttachResponse(**message))

    def end(self, error: Exception | None = None) -> None:
        self._answers.put_nowait(error)

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancelled = True
        self._reader.cancel()

    async def __aiter__(self) -> AsyncIterator[fleet_pb2.AttachResponse]:
        while True:
            answer = await self._answers.get()
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                return
            yield answer

    @property
    def kinds(self) -> list[str | None]:
        return [request.WhichOneof("message") for request in self.said]


class FakeServing:
    """Notes the router's wishes."""

    def __init__(self) -> None:
        self.wishes: list[tuple[str, ...]] = []

    def serve(self, key: str, model_version: str) -> None:
        self.wishes.append(("serve", key, model_version))

    async def stop(self, key: str) -> None:
        self.wishes.append(("stop", key))


class FakeDescription:
    """Describes a runtime with one model."""

    draining = False

    async def describe(self) -> router_pb2.Runtime:
        return router_pb2.Runtime(name="runtimes/r", instance="i")

    def report(self) -> fleet_pb2.Report:
        served = router_pb2.ServedModel(key="k", state=router_pb2.ServedModel.STATE_READY)
        return fleet_pb2.Report(models=[served], in_flight=3, draining=self.draining)


class Bench:
    """An attachment that runs against fake streams."""

    def __init__(self, report_seconds: float = 60.0) -> None:
        self.streams: list[FakeStream] = []
        self.refusals: list[Exception] = []
        self.description = FakeDescription()
        self.serving = FakeServing()
        self.log = FakeLog()
        self.attachment = Attachment(
            self._open,
            self.description,
            self.serving,
            log=self.log,
            report_seconds=report_seconds,
        )
        self.task = asyncio.create_task(self.attachment.run())

    async def _open(self, requests: AsyncIterator[fleet_pb2.AttachRequest]) -> FakeStream:
        if self.refusals:
            raise self.refusals.pop(0)
        self.streams.append(FakeStream(requests))
        return self.streams[-1]

    async def stream(self, number: int) -> FakeStream:
        await eventually(lambda: len(self.streams) > number)
        return self.streams[number]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_it_advertises_first_and_then_reports_what_it_serves() -> None:
    bench = Bench()
    stream = await bench.stream(0)
    await eventually(lambda: len(stream.said) == 2)

    assert stream.kinds == ["advertisement", "report"]
    assert stream.said[1].report.models[0].key == "k"
    assert stream.said[1].report.in_flight == 3
    await bench.close()
    assert stream.cancelled


async def test_it_reports_again_at_once_when_something_changed_and_regularly_when_not() -> None:
    bench = Bench()
    stream = await bench.stream(0)
    await eventually(lambda: len(stream.said) == 2)
    bench.description.draining = True

    bench.attachment.changed()

    await eventually(lambda: len(stream.said) == 3)
    assert stream.said[2].report.draining
    await bench.close()

    regular = Bench(report_seconds=0.01)
    stream = await regular.stream(0)
    await eventually(lambda: len(stream.said) > 5)
    await regular.close()


async def test_it_does_what_the_router_asks() -> None:
    bench = Bench()
    stream = await bench.stream(0)
    assert "not attached" in bench.attachment.problem
    stream.answer(welcome=fleet_pb2.Welcome(router_instance="router-1"))
    stream.answer(serve=fleet_pb2.Serve(key="k", model_version="v"))
    stream.answer(stop_serving=fleet_pb2.StopServing(key="k"))

    await eventually(lambda: len(bench.serving.wishes) == 2)

    assert bench.serving.wishes == [("serve", "k", "v"), ("stop", "k")]
    assert bench.attachment.problem == ""
    await bench.close()


async def test_it_comes_back_after_a_lost_stream_and_says_everything_again() -> None:
    bench = Bench()
    first = await bench.stream(0)
    first.answer(welcome=fleet_pb2.Welcome(router_instance="router-1"))
    await eventually(lambda: not bench.attachment.problem)
    bench.refusals = [Unavailable("the router does not answer")]
    first.end(Unavailable("the router went away"))

    second = await bench.stream(1)
    await eventually(lambda: len(second.said) == 2)

    assert first.cancelled
    assert second.kinds == ["advertisement", "report"]
    assert "does not answer" in bench.attachment.problem
    assert bench.log.events().count("detached") == 1
    second.answer(welcome=fleet_pb2.Welcome(router_instance="router-2"))
    await eventually(lambda: not bench.attachment.problem)
    second.end()
    await bench.stream(2)
    await bench.close()
