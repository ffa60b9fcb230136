"""The lines and metrics of calls: written moments later, as if they had been written at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from prometheus_client import CollectorRegistry

from services.chassis import logs
from services.chassis.context import CallContext, Principal
from services.chassis.rpc import rpc_log
from services.chassis.rpc.rpc_log import RpcLog
from services.chassis.telemetry import CallMetrics
from stellwerk.wire.errors import ModelNotFound
from tests.fakes.eventually import eventually

METHOD = "/stellwerk.test.v1.TestService/Do"


class Written:
    """A call log with all that it writes."""

    def __init__(self, level: str, stderr: pytest.CaptureFixture[bytes]) -> None:
        self._stderr, self.now = stderr, 1_700_000_000.5
        self.registry = CollectorRegistry()
        log = logs.configure("router", "router-1", levels=logs.LogLevels(level), style="json")
        self.calls = RpcLog(CallMetrics(self.registry), log, clock=lambda: self.now)

    def lines(self) -> list[dict[str, Any]]:
        """What was written since the last time."""
        return [orjson.loads(line) for line in self._stderr.readouterr().err.splitlines()]

    def count(self, code: str) -> float | None:
        return self.registry.get_sample_value("stellwerk_rpc_total", {"rpc": METHOD, "code": code})


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def call() -> CallContext:
    return CallContext(
        METHOD,
        "request-7",
        "ipv4:10.0.0.1",
        principal=Principal("principals/ada"),
        resource="buckets/b",
    )


async def test_a_line_tells_the_call_and_when_it_ended(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    written = Written("info", capsysbinary)
    written.calls.note(call(), ModelNotFound("no such model"), 0.25, quiet=False)
    assert written.lines() == []
    written.now += 99

    written.calls.flush()

    (line,) = written.lines()
    assert line["timestamp"] == "2023-11-14T22:13:20.500000Z"
    assert (line["event"], line["level"], line["method"], line["code"]) == (
        "rpc",
        "info",
        METHOD,
        "NOT_FOUND",
    )
    assert (line["request_id"], line["principal"], line["resource"]) == (
        "request-7",
        "principals/ada",
        "buckets/b",
    )
    assert (line["reason"], line["ms"], line["peer"]) == ("MODEL_NOT_FOUND", 250.0, "ipv4:10.0.0.1")
    assert written.count("NOT_FOUND") == 1


async def test_it_is_written_without_being_asked(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    written = Written("info", capsysbinary)
    written.calls.note(call(), None, 0.1, quiet=False)

    await eventually(lambda: written.count("OK") == 1, within=1.0)

    assert [line["code"] for line in written.lines()] == ["OK"]


async def test_what_gathers_is_bounded_and_keeps_its_order(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    written = Written("info", capsysbinary)
    for number in range(rpc_log._MAX_GATHERED):
        written.calls.note(call(), None, number / 1000, quiet=False)

    assert [line["ms"] for line in written.lines()] == [
        float(number) for number in range(rpc_log._MAX_GATHERED)
    ]


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 0)])
async def test_a_quiet_call_is_counted_and_has_its_line_on_debug(
    capsysbinary: pytest.CaptureFixture[bytes], level: str, lines: int
) -> None:
    written = Written(level, capsysbinary)
    written.calls.note(call(), None, 0.1, quiet=True)

    written.calls.flush()

    assert (len(written.lines()), written.count("OK")) == (lines, 1)
