"""Answers requests: encodes their replies, hands them to the sender, counts and logs them.

Every model call has one log line and its counts. Each item and each member of a group has a line
and a span of its own only where debug lines or traces are asked for. Payloads never appear.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from services.chassis import logs
from services.chassis.telemetry import Tracing
from services.runtime.execution.batch_call import BatchOutcome, BatchResult
from services.runtime.execution.stream_call import Sent, StreamedAnswer
from services.runtime.metrics import RuntimeMetrics
from services.runtime.replies.encoding import EncodedReplies, ReplyEncoder
from services.runtime.replies.response_cache import ResponseCache
from services.runtime.replies.sender import ReplySender
from services.runtime.requests.members import (
    described,
    items_of,
    still_open,
)
from services.runtime.requests.request import Group, Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import metadata
from stellwerk.wire.errors import Internal, ServiceError


class Responder:
    """Answers the requests of one runtime."""

    def __init__(
        self,
        name: str,
        replies: ReplySender,
        responses: ResponseCache,
        metrics: RuntimeMetrics,
        *,
        tracing: Tracing,
        log: Any,
    ) -> None:
        """Takes the runtime's resource name, which every reply carries, as `name`."""
        self._encoder = ReplyEncoder(name, replies.frame_bytes)
        self._replies = replies
        self._responses = responses
        self._metrics = metrics
        self._tracing = tracing
        self._traces = tracing.exports
        self._log = log

    def answer(self, model_version: str, cache: bool, outcome: BatchOutcome) -> None:
        """Answers the open requests of a batch.

        `cache` keeps the outputs of requests that were looked up in the response cache.
        """
        if outcome.batching_refused:
            self._record_refused_batching(model_version, outcome.requests[0].layout.method.name)
        for result in outcome.results:
            asked = still_open(result.requests)
            if not asked:
                continue
            replies = self._encoder.replies(result, outcome.started)
            if cache and result.columns:
                self._responses.keep(asked, [frame for part in replies for frame in part.frames])
            for part in replies:
                self._send(part)
            answered = sum([len(part.frames) * part.each for part in replies])
            self._record_call(model_version, asked, answered, result, outcome.started)
        for result in outcome.results:
            # A traceback holds the frame of its call, which holds the result and its requests.
            result.error = result.cause = None

    def answer_part(self, request: Request, answer: StreamedAnswer, sent: Sent) -> None:
        """Sends one of several answers, unless no one waits for it any more."""
        if request.open and request.work.reply_to:
            frames = [self._encoder.streamed(request, answer)]
            self._replies.send(request.work.reply_to, frames, sent)
        else:
            sent(1, False)

    def answer_from_cache(self, request: Request) -> bool:
        """Answers the request with the outputs of an equal one. Returns whether there are any."""
        found = self._responses.find(request)
        if found is None:
            return False
        self._send(EncodedReplies(request.work, [self._encoder.cached(request, *found)]))
        model_version = request.work.model_version
        self._metrics.recalled(model_version)
        if self._in_detail():
            self._record_request(request.item, model_version, "ok", 0, 0)
        return True

    def refuse(
        self,
        work: WorkMessage,
        items: Sequence[work_pb2.WorkItem],
        exc: Exception,
        now: float,
    ) -> None:
        """Answers items with an error that no model call caused; `now` is a time.monotonic().

        An exception other than a ServiceError reaches the caller as an internal error.
        """
        error = _service_error(exc)
        waited = max(0.0, now - work.received)
        frames = [self._encoder.error(item.id, error, waited) for item in items]
        self._send(EncodedReplies(work, frames))
        self._record_refusal(work, len(items), lambda: items, exc, waited)

    def refuse_members(
        self, work: WorkMessage, group: Group, members: Sequence[int], exc: Exception, now: float
    ) -> None:
        """Answers members of a group with one error, as `refuse` answers items."""
        waited = max(0.0, now - work.received)
        frame = self._encoder.error_to_members(group, members, _service_error(exc), waited)
        self._send(EncodedReplies(work, [frame], len(members)))
        self._record_refusal(
            work,
            len(members),
            lambda: [described(group, member) for member in members],
            exc,
            waited,
        )

    def _send(self, replies: EncodedReplies) -> None:
        work = replies.work
        if work.reply_to:
            self._replies.send(work.reply_to, replies.frames, work.sent, replies.each)
        else:
            work.sent(len(replies.frames) * replies.each)

    def _record_refusal(
        self,
        work: WorkMessage,
        refused: int,
        items: Callable[[], Sequence[work_pb2.WorkItem]],
        exc: Exception,
        waited: float,
    ) -> None:
        """Counts `refused` items; calls `items` for them where each has a line of its own."""
        reason = _service_error(exc).reason
        self._metrics.answered(work.model_version, reason, refused)
        internal = not isinstance(exc, ServiceError)
        if not internal and not self._in_detail():
            return
        for item in items():
            if internal:
                fields = _fields(item, work.model_version, reason)
                self._log.error("item_failed", **fields, exc_info=exc)
            if self._in_detail():
                self._record_request(item, work.model_version, reason, int(waited * 1e9), 0)

    def _record_refused_batching(self, model_version: str, method: str) -> None:
        """Records that a probe settled a method to be called for one request at a time."""
        self._metrics.batching_refused(model_version)
        self._log.warning("joining_refused", model_version=model_version, method=method)

    def _record_call(
        self,
        model_version: str,
        asked: Sequence[Request],
        answered: int,
        result: BatchResult,
        started: float,
    ) -> None:
        outcome = "ok" if result.error is None else result.error.reason
        received = min([request.work.received for request in asked])
        wait = max(0.0, started - received)
        self._metrics.called(
            model_version, outcome, answered, result.count, wait, result.compute_ns
        )
        if result.cause is not None and not isinstance(result.cause, ServiceError):
            for item in [item for request in asked for item in items_of(request)]:
                fields = _fields(item, model_version, outcome)
                self._log.warning("model_raised", **fields, exc_info=result.cause)
        # One line for the call; its ids join the lines of every request that shared it.
        logs.write_for(
            self._log,
            logging.INFO,
            "model_call",
            (ids for request in asked for ids in _call_ids(request)),
            model_version=model_version,
            method=asked[0].item.method,
            outcome=outcome,
            compute_ms=result.compute_ns / 1e6,
        )
        if self._in_detail():
            for request in asked:
                queue_ns = max(0, int((started - request.work.received) * 1e9))
                for item in items_of(request):
                    self._record_request(item, model_version, outcome, queue_ns, result.compute_ns)

    def _in_detail(self) -> bool:
        return self._traces or bool(self._log.is_enabled_for(logging.DEBUG))

    def _record_request(
        self,
        item: work_pb2.WorkItem,
        model_version: str,
        outcome: str,
        queue_ns: int,
        compute_ns: int,
    ) -> None:
        trace = item.context.get(metadata.TRACEPARENT, "")
        self._tracing.record(
            f"{item.method} {model_version}", trace, queue_ns + compute_ns, outcome
        )
        self._log.debug(
            "model_called",
            **_fields(item, model_version, outcome),
            queue_ms=queue_ns / 1e6,
            compute_ms=compute_ns / 1e6,
            timeout_ms=item.timeout_ms,
        )


def _service_error(exc: Exception) -> ServiceError:
    """Returns what the caller gets to see of an exception."""
    return exc if isinstance(exc, ServiceError) else Internal("internal error in the runtime")


def _fields(item: work_pb2.WorkItem, model_version: str, outcome: str) -> dict[str, Any]:
    return {
        **logs.ids_of([_item_ids(item)]),
        "principal": item.context.get(metadata.PRINCIPAL),
        "model_version": model_version,
        "method": item.method,
        "outcome": outcome,
    }


def _call_ids(request: Request) -> list[tuple[str, str]]:
    """Returns the request id and the traceparent of the item or each member, "" for none."""
    group = request.group
    if group is None:
        return [_item_ids(request.item)]
    total = len(group.timeouts_ms)
    none = [""] * total
    ids = list(zip(group.request_ids or none, group.traceparents or none, strict=True))
    return ids if len(request.members) == total else [ids[member] for member in request.members]


def _item_ids(item: work_pb2.WorkItem) -> tuple[str, str]:
    """Returns the request id and the traceparent, "" where the item has none."""
    context = item.context
    return context.get(metadata.REQUEST_ID, ""), context.get(metadata.TRACEPARENT, "")
