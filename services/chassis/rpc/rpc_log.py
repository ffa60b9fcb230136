"""Writes one log line and two metrics for each RPC.

Calls that end within a moment are written together: between other work each line would find its
code out of the processor's caches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import structlog

from services.chassis import logs
from services.chassis.context import CallContext
from services.chassis.telemetry import CallMetrics
from stellwerk.wire.errors import ServiceError

# Seconds that ended calls wait for others, and how many are written together at most. Together they
# halved the guard's share of a gRPC call, with one handler per call instead of three (commit
# 723f113).
_GATHER_SECONDS = 0.02
_MAX_GATHERED = 256


class RpcLog:
    """Gathers ended calls and writes them to the log and the metrics."""

    def __init__(
        self,
        metrics: CallMetrics,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.metrics = metrics
        self._clock = clock
        # Bound, because an unbound logger of structlog is assembled anew for each line.
        self._log = log.bind()
        # Ended calls: error, level of the line, duration in seconds, Unix time of the end.
        self._ended: list[tuple[CallContext, ServiceError | None, int, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(
        self, call: CallContext, error: ServiceError | None, seconds: float, *, quiet: bool
    ) -> None:
        """Takes down how a call ended, to be written soon; a quiet call at level debug.

        Needs a running event loop.
        """
        ended = self._ended
        if not ended:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        ended.append(
            (call, error, logging.DEBUG if quiet else logging.INFO, seconds, self._clock())
        )
        if len(ended) >= _MAX_GATHERED:
            self.flush()

    def flush(self) -> None:
        """Writes the gathered calls."""
        if self._timer is not None:
            self._timer.cancel()
        ended = self._ended
        self._ended = []
        self._timer = None
        for one in ended:
            self._write(*one)

    def unexpected(self, call: CallContext, error: Exception) -> None:
        """Logs the traceback of a fault of this service; its caller is told the request id only."""
        self._log.error("unexpected_error", method=call.method, exc_info=error)

    def _write(
        self, call: CallContext, error: ServiceError | None, level: int, seconds: float, at: float
    ) -> None:
        code = "OK" if error is None else error.code.name
        self.metrics.observe(call.method, code, seconds)
        if not self._log.is_enabled_for(level):
            return
        (self._log.info if level == logging.INFO else self._log.debug)(
            "rpc",
            method=call.method,
            code=code,
            reason=error.reason if error else None,
            ms=round(seconds * 1000, 2),
            principal=call.principal.name if call.principal else None,
            resource=call.resource or None,
            peer=call.peer,
            **logs.moment(call, at),
        )
