"""One log line and two metrics for each RPC. What ended in a moment is written together: between
other work each line would find its code out of the caches.
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

_GATHER_SECONDS, _MAX_GATHERED = 0.02, 256


class CallLog:
    """Writes calls down."""

    def __init__(
        self,
        metrics: CallMetrics,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.metrics, self._clock = metrics, clock
        # Bound, because the logger that a process begins with looks itself up for each line.
        self._log = log.bind()
        # Calls with their error, the level of their line, the seconds they took and when they
        # ended.
        self._ended: list[tuple[CallContext, ServiceError | None, int, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(
        self, call: CallContext, error: ServiceError | None, seconds: float, *, quiet: bool
    ) -> None:
        """Takes down how a call ended; a quiet one has its line on debug. Returns at once, inside
        of an event loop.
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
        """Writes what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
        ended, self._ended, self._timer = self._ended, [], None
        for one in ended:
            self._write(*one)

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
