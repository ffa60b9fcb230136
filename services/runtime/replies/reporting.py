"""What is said of answered requests: counts and a line for each call; a line and a span for each
request only for who asked for such detail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from services.chassis.telemetry import Tracing
from services.runtime.execution.invoke import Piece
from services.runtime.metrics import RuntimeMetrics
from services.runtime.requests.request import Request
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import metadata
from stellwerk.wire.errors import ServiceError


class Reporter:
    """Metrics, log lines and spans of one runtime. Payloads never appear."""

    def __init__(self, metrics: RuntimeMetrics, tracing: Tracing, log: Any) -> None:
        self._metrics, self._tracing, self._log = metrics, tracing, log

    def called(self, version: str, asked: Sequence[Request], piece: Piece, started: float) -> None:
        """A call of the model answered these requests; `started` as their `received`."""
        outcome = "ok" if piece.error is None else piece.error.reason
        self._metrics.answered(version, outcome, len(asked))
        received = min([request.work.received for request in asked])
        self._metrics.called(version, max(0.0, started - received), piece.compute_ns)
        if piece.cause is not None and not isinstance(piece.cause, ServiceError):
            for request in asked:
                fields = _fields(request.item, version, outcome)
                self._log.warning("model_raised", **fields, exc_info=piece.cause)
        if self._log.is_enabled_for(logging.INFO):
            # One line for a call, whoever shares it: their requests are found in it.
            self._log.info(
                "model_call",
                model_version=version,
                method=asked[0].item.method,
                outcome=outcome,
                compute_ms=piece.compute_ns / 1e6,
                requests=[request.item.context.get(metadata.REQUEST_ID, "") for request in asked],
            )
        if self._in_detail():
            for request in asked:
                queue_ns = max(0, int((started - request.work.received) * 1e9))
                self._tell(request.item, version, outcome, queue_ns, piece.compute_ns)

    def refused(
        self,
        version: str,
        items: Iterable[work_pb2.WorkItem],
        error: ServiceError,
        waited: float,
        cause: Any = None,
    ) -> None:
        """These items were answered without a call, after so many seconds."""
        for item in items:
            self._metrics.answered(version, error.reason)
            if cause is not None:
                self._log.error(
                    "item_failed", **_fields(item, version, error.reason), exc_info=cause
                )
            if self._in_detail():
                self._tell(item, version, error.reason, int(waited * 1e9), 0)

    def recalled(self, version: str, request: Request) -> None:
        """A request was answered as an equal one was before."""
        self._metrics.recalled(version)
        if self._in_detail():
            self._tell(request.item, version, "ok", 0, 0)

    def unjoinable(self, version: str, method: str) -> None:
        """A probe has shown that rows do not bear company, or could not show that they do."""
        self._metrics.unjoinable(version)
        self._log.warning("joining_refused", model_version=version, method=method)

    def _in_detail(self) -> bool:
        return self._tracing.exports or bool(self._log.is_enabled_for(logging.DEBUG))

    def _tell(
        self, item: work_pb2.WorkItem, version: str, outcome: str, queue_ns: int, compute_ns: int
    ) -> None:
        trace = item.context.get(metadata.TRACEPARENT, "")
        self._tracing.record(f"{item.method} {version}", trace, queue_ns + compute_ns, outcome)
        times = {
            "queue_ms": queue_ns / 1e6,
            "compute_ms": compute_ns / 1e6,
            "timeout_ms": item.timeout_ms,
        }
        self._log.debug("model_called", **_fields(item, version, outcome), **times)


def _fields(item: work_pb2.WorkItem, version: str, outcome: str) -> dict[str, Any]:
    trace = item.context.get(metadata.TRACEPARENT, "")
    return {
        "request_id": item.context.get(metadata.REQUEST_ID),
        "trace_id": trace.split("-")[1] if trace else None,
        "principal": item.context.get(metadata.PRINCIPAL),
        "model_version": version,
        "method": item.method,
        "outcome": outcome,
    }
