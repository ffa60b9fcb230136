"""Records the outcome of each call: metrics, the model's statistics, a span, refusals for the audit
ledger, and a log line on debug.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.chassis import logs
from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from services.router.calls.statistics import Statistics
from services.router.queueing.pending_requests import Outcome
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import NotPermitted, ServiceError, Unauthenticated

T = TypeVar("T")

# The method that every call is counted as, whichever door of the gateway it came through.
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(slots=True)
class CallColumns:
    """Holds what the records of a group's calls say of each, in columns of one element for each."""

    request_ids: Sequence[str]
    traceparents: Sequence[str]
    timeouts_ms: Sequence[int]
    peers: Sequence[str]

    @staticmethod
    def of(group: messages.CallGroup) -> CallColumns:
        """Returns the columns of a group. One of a wrong length says nothing of any call."""
        count = len(group.ids)
        peers = group.peers
        return CallColumns(
            _whole(group.request_ids, count, ""),
            _whole(group.traceparents, count, ""),
            _whole(group.timeouts_ms, count, 0),
            _whole(peers, count, peers[0] if len(peers) == 1 else ""),
        )

    def ids(self) -> Iterator[tuple[str, str]]:
        """Returns request id and traceparent of each call."""
        return zip(self.request_ids, self.traceparents, strict=True)


def _whole(column: Sequence[T], count: int, missing: T) -> Sequence[T]:
    return column if len(column) == count else [missing] * count


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
        if isinstance(outcome, Unauthenticated | NotPermitted):
            peer = call.peer
            self._refused(_refusal(call.model, call.request_id, peer, principal, outcome))
        code = self._count(version, outcome, seconds, 1)
        # A reply that others follow ends no call.
        if not code:
            return
        if call.traceparent:
            self._tracing.record("call " + call.model, call.traceparent, int(seconds * 1e9), code)
        if self._log.is_enabled_for(logging.DEBUG):
            ids = (call.request_id, call.traceparent)
            self._write(
                call.model, version, code, seconds, ids, call.timeout_ms, principal, call.peer
            )

    def record_members(
        self,
        group: messages.CallGroup,
        indexes: Sequence[int],
        principal: Principal | None,
        version: str,
        outcome: Outcome,
        seconds: float,
    ) -> None:
        """Records one outcome of the calls with these indexes of a group, as `record` does for each
        of them.
        """
        if isinstance(outcome, Unauthenticated | NotPermitted):
            columns = CallColumns.of(group)
            for index in indexes:
                id, peer = columns.request_ids[index], columns.peers[index]
                self._refused(_refusal(group.model, id, peer, principal, outcome))
        code = self._count(version, outcome, seconds, len(indexes))
        writes = self._log.is_enabled_for(logging.DEBUG)
        # Nearly always nothing is said of each call.
        if not (writes or self._tracing.exports):
            return
        columns = CallColumns.of(group)
        for index in indexes:
            ids = columns.request_ids[index], columns.traceparents[index]
            if ids[1]:
                self._tracing.record("call " + group.model, ids[1], int(seconds * 1e9), code)
            if writes:
                timeout_ms, peer = columns.timeouts_ms[index], columns.peers[index]
                self._write(group.model, version, code, seconds, ids, timeout_ms, principal, peer)

    def _count(self, version: str, outcome: Outcome, seconds: float, count: int) -> str:
        """Counts the outcome of `count` calls; returns its code, "" if it ends no call."""
        reply = None if isinstance(outcome, ServiceError) else outcome
        code = _code(outcome)
        if version:
            self._statistics.record(
                version,
                reply,
                ok=code == "OK",
                now_ms=int(time.time() * 1000),
                total_ns=int(seconds * 1e9),
                count=count,
            )
        if reply is not None and reply.more:
            return ""
        self._metrics.observe(METHOD, code, seconds, count)
        return code

    def _write(
        self,
        model: str,
        version: str,
        code: str,
        seconds: float,
        ids: tuple[str, str],
        timeout_ms: int,
        principal: Principal | None,
        peer: str,
    ) -> None:
        self._log.debug(
            "call",
            **logs.ids_of([ids]),
            model=model,
            version=version,
            code=code,
            ms=round(seconds * 1000, 2),
            timeout_ms=timeout_ms,
            principal=principal.name if principal else None,
            peer=peer,
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
    model: str, request_id: str, peer: str, principal: Principal | None, error: ServiceError
) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_REFUSAL,
        principal=principal.name if principal else "",
        method=METHOD,
        resource=model[:512],
        request_id=request_id,
        outcome=error.reason,
        peer=peer,
        count=1,
    )
