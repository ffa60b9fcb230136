"""What is kept of each call: counts and times, statistics of the model, a span, refusals for the
ledger, and a line in the log for those who debug."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import NotPermitted, ServiceError, Unauthenticated

# What a call is counted as, whichever door it came through.
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Counts(Protocol):
    """The statistics of models."""

    def record(
        self,
        version_name: str,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        now_ms: int,
        total_ns: int,
    ) -> None: ...

    def record_answer(
        self,
        version_name: str,
        place: int,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        total_ns: int,
    ) -> None: ...


class CallJournal:
    """Writes it down."""

    def __init__(
        self,
        metrics: CallMetrics,
        counts: Counts,
        tracing: Tracing,
        refused: Callable[[audit.AuditRecord], None],
        log: Any,
    ) -> None:
        """`refused` takes the audit record of a caller that was turned away."""
        self._metrics, self._counts, self._tracing, self._refused, self._log = (
            metrics,
            counts,
            tracing,
            refused,
            log,
        )

    def note(
        self,
        call: messages.Call,
        principal: Principal | None,
        version: str,
        outcome: work_pb2.WorkReply | ServiceError,
        seconds: float,
    ) -> None:
        """Takes down one answer to a call; `version` is "" for a call that never came to a
        model.
        """
        code = _code(outcome)
        if isinstance(outcome, ServiceError):
            if isinstance(outcome, Unauthenticated | NotPermitted):
                self._refused(_refusal(call, principal, outcome))
            reply = None
        else:
            reply = outcome
        if version:
            self._counts.record(
                version,
                reply,
                ok=code == "OK",
                now_ms=int(time.time() * 1000),
                total_ns=int(seconds * 1e9),
            )
        if reply is not None and reply.more:
            return
        self._metrics.observe(METHOD, code, seconds)
        if call.traceparent:
            self._tracing.record("call " + call.model, call.traceparent, int(seconds * 1e9), code)
        if not self._log.is_enabled_for(logging.DEBUG):
            return
        self._log.debug(
            "call",
            request_id=call.request_id,
            model=call.model,
            version=version,
            code=code,
            ms=round(seconds * 1000, 2),
            timeout_ms=call.timeout_ms,
            principal=principal.name if principal else None,
            peer=call.peer,
        )

    def note_part(
        self, version: str, place: int, reply: work_pb2.WorkReply | None, seconds: float
    ) -> None:
        """Takes down one of several answers to a call, the `place`-th from 0, that came `seconds`
        after the one before it; without a reply its caller went away."""
        ok = reply is not None and not reply.HasField("error")
        self._counts.record_answer(version, place, reply, ok=ok, total_ns=int(seconds * 1e9))


def _code(outcome: work_pb2.WorkReply | ServiceError) -> str:
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
