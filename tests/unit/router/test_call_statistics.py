"""What a gateway's calls leave in the statistics: one request each, and their answers by place if
they get several.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from services.router.calls.call_log import CallLog
from services.router.calls.gateway_stream import GatewayStream
from services.router.calls.statistics import Statistics
from services.router.open_inference.model_statistics import describe
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.permissions import Grant
from tests.fakes.log import FakeLog

NAME = "buckets/default/models/iris/versions/1"


class Invocations:
    """Knows one model, which is ready; keeps the calls that wait for replies."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def send_if_ready(self, call: Any, _: Any) -> bool:
        call.target = SimpleNamespace(name=NAME)
        self.waiting.append(call)
        return True

    def cancel(self, _: Any) -> None:
        pass


class Fixture:
    """A stream with one call on it."""

    def __init__(self) -> None:
        self.statistics, self.invocations = Statistics(), Invocations()
        metrics = CallMetrics(CollectorRegistry())
        self.refused: list[Any] = []
        call_log = CallLog(
            metrics, self.statistics, Tracing("r", "r", ""), self.refused.append, FakeLog()
        )  # type: ignore[arg-type]
        verifier = SimpleNamespace(verify=lambda _: Principal("principals/ada", (Grant("caller"),)))
        parts: Any = (self.invocations, verifier, call_log, FakeLog())
        self.stream = GatewayStream(*parts)
        call = messages.Call(id=7, credential=1, model="iris", timeout_ms=10_000)
        credential = messages.Credential(id=1, token="t")
        self.take(credentials=[credential], calls=[call])

    def take(self, **fields: Any) -> None:
        """Has the stream read one frame."""

        async def frames() -> AsyncIterator[messages.ExchangeRequest]:
            yield messages.ExchangeRequest(**fields)

        asyncio.run(self.stream.read(frames()))

    def answer(self, **fields: Any) -> None:
        self.invocations.waiting[0].on_reply(work_pb2.WorkReply(**fields))

    def described(self) -> Any:
        return describe("iris", "1", self.statistics.of(NAME), memory_bytes=0, caches=False)


@pytest.fixture
def stream() -> Fixture:
    return Fixture()


def output() -> list[Any]:
    reply = work_pb2.WorkReply()
    reply.outputs.add(name="y")
    return list(reply.outputs)


def test_one_answer_is_one_request_and_has_no_place(stream: Fixture) -> None:
    stream.answer(rows=2, leads=True, outputs=output())

    found = stream.described()
    assert (found.inference_stats.success.count, found.inference_count, found.execution_count) == (
        1,
        2,
        1,
    )
    assert time.time() * 1000 - found.last_inference < 60_000
    assert not found.response_stats


def test_several_answers_are_one_request_and_have_their_places(stream: Fixture) -> None:
    stream.answer(more=True, leads=True, outputs=output())
    stream.answer(more=True, outputs=output())
    stream.answer(rows=1)

    found = stream.described()
    assert (found.inference_stats.success.count, found.execution_count) == (1, 1)
    places = found.response_stats
    assert {place: (s.success.count, s.empty_response.count) for place, s in places.items()} == {
        "0": (1, 0), "1": (1, 0), "2": (0, 1),
    }  # fmt: skip


def test_an_error_after_answers_fails_the_request_and_its_place(stream: Fixture) -> None:
    stream.answer(more=True, outputs=output())
    stream.answer(error=work_pb2.WorkError(code=13, reason="INTERNAL", message="it broke"))

    found = stream.described()
    assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (0, 1)
    assert found.response_stats["1"].fail.count == 1


def test_a_caller_that_goes_away_between_answers_is_counted_there(stream: Fixture) -> None:
    stream.answer(more=True, outputs=output())

    stream.take(cancelled=[7])

    assert stream.described().response_stats["1"].cancel.count == 1
