"""What is kept of HTTP requests: lines and metrics written together, refusals at once."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.access_log import _MAX_GATHERED, AccessLog
from services.api_gateway.http.exchange import HttpExchange
from services.api_gateway.http.heads import NO_CUTS, ParsedHead
from services.api_gateway.http.request import HttpRequest
from services.chassis.context import CallContext
from services.chassis.telemetry import Tracing
from stellwerk.wire.errors import Unauthenticated
from tests.fakes.eventually import eventually
from tests.fakes.log import FakeLog

SETTINGS = GatewaySettings()


class Kept:
    """A access_log and what it wrote."""

    def __init__(self) -> None:
        self.log, self.registry = FakeLog(), CollectorRegistry()
        self.refused: list[Any] = []
        log: Any = self.log
        self.access_log = AccessLog(self.registry, log, self.refused.append, Tracing("g", "1", ""))

    def served(self, status: int = 200, **changes: Any) -> None:
        head = ParsedHead("POST", b"/secret", b"", "1.1", [(b"host", b"x")], True)
        request: Any = HttpRequest(None, head, NO_CUTS)  # type: ignore[arg-type]
        call = CallContext("/x", "req-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
        started = time.perf_counter() - 0.002
        exchange = HttpExchange(
            request, call, SETTINGS, started, route="/{x}", status=status, **changes
        )
        self.access_log.record(exchange)

    def count(self, status: str) -> float | None:
        labels = {"method": "POST", "route": "/{x}", "status": status}
        return self.registry.get_sample_value("stellwerk_http_requests_total", labels)


async def test_what_was_served_in_a_moment_is_written_together_and_soon() -> None:
    kept = Kept()

    for _ in range(3):
        kept.served()
    at_once = list(kept.log.lines)
    await eventually(lambda: len(kept.log.lines) == 3)

    event, fields = kept.log.lines[0]
    assert not at_once
    assert (event, fields["status"], fields["route"]) == ("http", 200, "/{x}")
    assert 2.0 <= fields["ms"] < 1000
    assert (fields["request_id"], fields["trace_id"]) == ("req-1", "a" * 32)
    assert "secret" not in str(kept.log.lines)
    assert kept.count("200") == 3


async def test_much_is_written_before_it_becomes_more() -> None:
    kept = Kept()

    for _ in range(_MAX_GATHERED):
        kept.served()

    assert len(kept.log.lines) == _MAX_GATHERED


async def test_what_has_gathered_is_written_at_the_end() -> None:
    kept = Kept()
    kept.served(503)

    await kept.access_log.close()
    kept.access_log.flush()

    assert len(kept.log.lines) == 1
    assert kept.count("503") == 1


async def test_a_refusal_is_told_at_once() -> None:
    kept = Kept()

    kept.served(401, error=Unauthenticated("who are you"))

    assert [(record.outcome, record.request_id) for record in kept.refused] == [
        ("UNAUTHENTICATED", "req-1")
    ]
