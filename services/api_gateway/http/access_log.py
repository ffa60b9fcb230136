"""Records each HTTP request: a log line, two metrics by route, a span, and refusals for the audit.

Paths, queries, bodies and credentials are never recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from services.api_gateway.http.exchange import HttpExchange
from services.chassis import logs
from services.chassis.context import CallContext
from services.chassis.telemetry import Timings, Tracing
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire.errors import ServiceError, Unauthenticated

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# Requests that end within 0.02 seconds, 256 at most, are written together: written one by one,
# each line finds its code evicted from the processor's caches.
_GATHER_SECONDS = 0.02
_MAX_GATHERED = 256
# An exchange, the seconds that it took, and the time at which it ended.
_Ended = tuple[HttpExchange, float, float]
_SHARED = ("method", "route", "status", "reason", "principal")
_STATUS = {status: str(status) for status in range(600)}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class AccessLog:
    """Writes the log line, metrics and span of each HTTP request."""

    def __init__(
        self,
        registry: CollectorRegistry,
        log: structlog.typing.FilteringBoundLogger,
        refused: Callable[[audit.AuditRecord], None],
        tracing: Tracing,
    ) -> None:
        """Passes the audit record of each caller that cannot be authenticated to `refused`."""
        # Bound, because structlog's first logger looks its configuration up for each line.
        self._log: Any = log.bind()
        self._refused = refused
        self._tracing = tracing
        self._timings = Timings(
            registry,
            ("stellwerk_http_requests", "HTTP requests served"),
            ("stellwerk_http_seconds", "Time of an HTTP request"),
            ["method", "route", "status"],
            _BUCKETS,
        )
        # Exchanges still to be written: the seconds each took, and the time at which it ended.
        self._ended: list[_Ended] = []
        self._timer: asyncio.TimerHandle | None = None

    def record(self, exchange: HttpExchange) -> None:
        """Records a request that ends now; its line and metrics are written within 0.02 s."""
        seconds = time.perf_counter() - exchange.started
        if isinstance(exchange.error, Unauthenticated):
            self._refused(_refusal(exchange.call, exchange.error))
        if exchange.span is not None:
            self._tracing.end(exchange.span, exchange.error.code.name if exchange.error else "OK")
        if not self._ended:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        self._ended.append((exchange, seconds, time.time()))
        if len(self._ended) >= _MAX_GATHERED:
            self.flush()

    def flush(self) -> None:
        """Writes the requests recorded so far."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        ended = self._ended
        self._ended = []
        for exchange, seconds, _ in ended:
            method = exchange.request.head.method
            labels = (
                method if method in _METHODS else "OTHER",
                exchange.route,
                _STATUS[exchange.status],
            )
            self._timings.observe(labels, seconds)
        quiet: list[_Ended] = []
        loud: list[_Ended] = []
        for each in ended:
            (quiet if each[0].quiet and each[0].error is None else loud).append(each)
        self._log.write_all(logging.DEBUG, "http", _SHARED, map(_line, quiet))
        self._log.write_all(logging.INFO, "http", _SHARED, map(_line, loud))

    async def close(self) -> None:
        """Writes the requests recorded so far, at the end of the process."""
        self.flush()


def _line(ended: _Ended) -> logs.Line:
    """Returns the line of an exchange: the values of _SHARED, and the fields of its own."""
    exchange, seconds, at = ended
    request, call, error = exchange.request, exchange.call, exchange.error
    method = request.head.method
    return (
        method if method in _METHODS else "OTHER",
        exchange.route,
        exchange.status,
        error.reason if error else None,
        call.principal.name if call.principal else None,
    ), {
        "ms": round(seconds * 1000, 2),
        "bytes_in": request.bytes_read,
        "bytes_out": exchange.bytes_sent,
        "peer": call.peer,
        **logs.moment(call, at),
    }


def _refusal(call: CallContext, error: ServiceError) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_REFUSAL,
        method=call.method,
        request_id=call.request_id,
        outcome=error.reason,
        peer=call.peer,
        count=1,
    )
