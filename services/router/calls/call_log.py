"""Records the outcome of each call: metrics, the model's statistics, a span, refusals for the audit
ledger, and a log line on debug.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from services.chassis import logs
from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from services.router.calls.statistics import Statistics
from services.router.queueing.pending_requests import Outcome
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import NotPermitted, ServiceError, Unauthenticated

# The method that every call is counted as, whichever door of the gateway it came through.
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class CallLog:
    """Records calls."""

    def __init__(
        self,
        metrics: CallMetrics,
        statistics: Statistics,
        tracing: Tracing,
        refused: Callable[[audit.AuditRecord], None],
        log: Any,
    ) -> None:
        """Hands the audit record of a caller that was turned away to `refused`."""
        self._metrics = metrics
        self._statistics = statistics
        self._tracing = tracing
        self._refused = refused
        self._log = log

    def record(
        self,
        call: messages.Call,
        principal: Principal | None,
        version: str,
        outcome: Outcome,
        seconds: float,
    ) -> None:
        """Records one outcome of a call after `seconds`. `version` is "" for a call whose model was
        not found.
        """
        code = _code(outcome)
        if isinstance(outcome, ServiceError):
            if isinstance(outcome, Unauthenticated | NotPermitted):
                self._refused(_refusal(call, principal, outcome))
            reply = None
        else:
            reply = outcome
        if version:
            self._statistics.record(
                version,
                reply,
                ok=code == "OK",
                now_ms=int(time.time() * 1000),
                total_ns=int(seconds * 1e9),
            )
        # A reply that others follow ends no call.
        if reply is not None and reply.more:
            return
        self._metrics.observe(METHOD, code, seconds)
        if call.traceparent:
            self._tracing.record("call " + call.model, call.traceparent, int(seconds * 1e9), code)
        if not self._log.is_enabled_for(logging.DEBUG):
            return
        self._log.debug(
            "call",
            **logs.ids_of([(call.request_id, call.traceparent)]),
            model=call.model,
            version=version,
            code=code,
            ms=round(seconds * 1000, 2),
            timeout_ms=call.timeout_ms,
            principal=principal.name if principal else None,
            peer=call.peer,
        )

    def record_part(
        self, version: str, index: int, reply: work_pb2.WorkReply | None, seconds: float
    ) -> None:
        """Records the reply of this index, from 0, to a call that gets several, `seconds` after the
        reply before it. `reply` is None if the caller went away instead.
        """
        ok = reply is not None and not reply.HasField("error")
        self._statistics.record_part(version, index, reply, ok=ok, total_ns=int(seconds * 1e9))


def _code(outcome: Outcome) -> str:
    if isinstance(outcome, ServiceError):
        return outcome.code.name
    return "ERROR" if outcome.HasField("error") else "OK"


def _refusal(
    call: messages.Call, principal: Principal | None, error: ServiceError
) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_REFUSAL,
        principal=principal.name if principal else "",
        method=METHOD,
        resource=call.model[:512],
        request_id=call.request_id,
        outcome=error.reason,
        peer=call.peer,
        count=1,
    )
