"""What a gateway's calls leave in the statistics: one request each, and their answers by place if
they get several.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from services.router.calls.call_log import CallJournal
from services.router.calls.exchange_servicer import Exchange
from services.router.calls.statistics import Statistics, describe
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.permissions import Grant
from tests.fakes.log import FakeLog

NAME = "buckets/default/models/iris/versions/1"


class Predictions:
    """Knows one model, which is served; keeps those who wait for answers."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.serving = SimpleNamespace(fleet=SimpleNamespace(ready=lambda key: True))

    def known(self, _: Any) -> Any:
        return SimpleNamespace(name=NAME)

    def demand(self, _: Any) -> Any:
        return SimpleNamespace(key="key")

    def send(self, callee: Any, demand: Any, work: Any, deadline: float, answered: Any) -> str:
        self.waiting.append(answered)
        return str(len(self.waiting))

    def cancel(self, _: str) -> None:
        pass


class Fixture:
    """A stream with one call on it."""

    def __init__(self) -> None:
        self.statistics, self.predictions = Statistics(), Predictions()
        metrics = CallMetrics(CollectorRegistry())
        self.refused: list[Any] = []
        journal = CallJournal(
            metrics, self.statistics, Tracing("r", "r", ""), self.refused.append, FakeLog()
        )  # type: ignore[arg-type]
        verifier = SimpleNamespace(verify=lambda _: Principal("principals/ada", (Grant("caller"),)))
        parts: Any = (self.predictions, verifier, journal, FakeLog())
        self.exchange = Exchange(*parts)
        call = messages.Call(id=7, credential=1, model="iris", timeout_ms=10_000)
        credential = messages.Credential(id=1, token="t")
        self.exchange.take(messages.ExchangeRequest(credentials=[credential], calls=[call]))

    def answer(self, **fields: Any) -> None:
        self.predictions.waiting[0](work_pb2.WorkReply(**fields))

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

    stream.exchange.take(messages.ExchangeRequest(cancelled=[7]))

    assert stream.described().response_stats["1"].cancel.count == 1
