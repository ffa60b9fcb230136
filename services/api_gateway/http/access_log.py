"""What is kept of each HTTP request: one log line, two metrics by route, a span, and refusals for
the ledger.

Paths, queries, bodies and credentials are never kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.api_gateway.http.exchange import Passage
from services.chassis import logs
from services.chassis.context import CallContext
from services.chassis.telemetry import Tracing
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire.errors import ServiceError, Unauthenticated

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# What was served in a moment is written together: between other work each line would find its code
# out of the caches.
_GATHER_SECONDS, _MAX_GATHERED = 0.02, 256
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpJournal:
    """Writes it down."""

    def __init__(
        self,
        registry: CollectorRegistry,
        log: structlog.typing.FilteringBoundLogger,
        refused: Callable[[audit.AuditRecord], None],
        tracing: Tracing,
    ) -> None:
        """`refused` takes the audit record of a caller that was turned away at the door."""
        # Bound, because the logger that a process begins with looks itself up for each line.
        self._log, self._refused, self._tracing = log.bind(), refused, tracing
        self._count = Counter(
            "stellwerk_http_requests",
            "HTTP requests served",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "stellwerk_http_seconds",
            "Time of an HTTP request",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        # Served, with the seconds it took and when it ended.
        self._ended: list[tuple[Passage, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        # Looking label children up costs more than counting.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def begin(self, passage: Passage) -> None:
        """Takes down that a request's route is known; its span becomes the parent of the call
        behind.
        """
        passage.span = self._tracing.begin(
            f"{passage.request.method} {passage.route}", passage.call
        )

    def note(self, passage: Passage, seconds: float) -> None:
        """Takes down one request that has been served. Returns at once; lines and metrics are
        written together.
        """
        if isinstance(passage.error, Unauthenticated):
            self._refused(_refusal(passage.call, passage.error))
        self._tracing.end(passage.span, passage.error.code.name if passage.error else "OK")
        if not self._ended:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        self._ended.append((passage, seconds, time.time()))
        if len(self._ended) >= _MAX_GATHERED:
            self.flush()

    def flush(self) -> None:
        """Writes what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
        ended, self._ended, self._timer = self._ended, [], None
        for passage, seconds, at in ended:
            self._write(passage, seconds, at)

    async def close(self) -> None:
        """Writes what has gathered at the end of the process."""
        self.flush()

    def _write(self, passage: Passage, seconds: float, at: float) -> None:
        request, call, error = passage.request, passage.call, passage.error
        status, route = passage.status, passage.route
        method = request.method if request.method in _METHODS else "OTHER"
        key = (method, route, status)
        children = self._children.get(key)
        if children is None:
            children = (
                self._count.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)
        quiet = passage.quiet and error is None
        if not self._log.is_enabled_for(logging.DEBUG if quiet else logging.INFO):
            return
        (self._log.debug if quiet else self._log.info)(
            "http",
            method=method,
            route=route,
            status=status,
            reason=error.reason if error else None,
            ms=round(seconds * 1000, 2),
            principal=call.principal.name if call.principal else None,
            bytes_in=request.bytes_read,
            bytes_out=passage.bytes_sent,
            peer=call.peer,
            **logs.moment(call, at),
        )


def _refusal(call: CallContext, error: ServiceError) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_REFUSAL,
        method=call.method,
        request_id=call.request_id,
        outcome=error.reason,
        peer=call.peer,
        count=1,
    )
