"""Calls of one model in one form under one credential that a gateway sent as a group. What they
share is done once; each is a member and keeps its own deadline, cancellation and answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from services.chassis import context, logs, rpc_status
from services.chassis.context import HOP_SECONDS, CallContext, Principal
from services.router.calls.call_log import METHOD, CallColumns
from services.router.calls.invocations import Invocations
from services.router.naming.target import ModelTarget
from services.router.queueing.members import GroupWork
from services.router.queueing.pending_requests import Outcome
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import columns
from stellwerk.wire.errors import InvalidInput, ServiceError
from stellwerk.wire.names import ModelName


class CallGroup:
    """The calls of a group, by their indexes from 0, from their frame to their answers."""

    __slots__ = (
        "_answer",
        "_clock",
        "_log",
        "deadlines",
        "ids",
        "message",
        "principal",
        "sent",
        "started",
        "target",
        "task",
        "waiting",
        "work",
    )

    def __init__(
        self,
        message: messages.CallGroup,
        answer: Callable[[CallGroup, Sequence[int], Outcome], None],
        clock: Callable[[], float],
        log: Any,
    ) -> None:
        """Hands each member's outcome to `answer` with the member's index."""
        self._answer = answer
        self._clock = clock
        self._log = log
        self.message = message
        self.work = message.work
        # The calls' numbers in the stream.
        self.ids = list(message.ids)
        self.started = self._clock()
        begun = self.started - HOP_SECONDS
        self.deadlines = [begun + timeout_ms / 1000 for timeout_ms in message.timeouts_ms]
        self.principal: Principal | None = None
        # Set by `Invocations`: the version, and the members' work once it is sent.
        self.target: ModelTarget | None = None
        self.sent: GroupWork | None = None
        # The members that have not ended, before the work is sent.
        self.waiting = list(range(len(self.ids)))
        # The task that sends the work when its model is ready.
        self.task: asyncio.Task[None] | None = None

    @property
    def deadline(self) -> float:
        """The last of the deadlines of the members that wait."""
        return max([self.deadlines[index] for index in self.waiting], default=0.0)

    def members(self) -> GroupWork:
        """Returns the work of the members, which end by `on_reply`."""
        message = self.message
        return GroupWork(
            self.work, self.deadlines, message.request_ids, message.traceparents, self.on_reply
        )

    def send(self, invocations: Invocations, name: ModelName) -> None:
        """Sends the work, as soon as the model is ready. Raises InvalidInput for a group that does
        not hold what its members need, and what `Invocations.send_group_if_ready` raises.
        """
        message = self.message
        count = len(self.ids)
        if len(message.timeouts_ms) != count:
            raise InvalidInput("each call of a group needs a timeout")
        columns.check_count(count, message.request_ids, message.traceparents)
        if self.work.stream:
            raise InvalidInput("calls that take several answers cannot travel in a group")
        if not invocations.send_group_if_ready(self, name):
            self.task = asyncio.create_task(self._send_when_ready(invocations, name))

    async def _send_when_ready(self, invocations: Invocations, name: ModelName) -> None:
        context.bind(self._context())
        expiry = asyncio.create_task(self._expire())
        try:
            await invocations.send_group_when_ready(self, name)
        except Exception as exc:
            self.fail(exc)
        finally:
            expiry.cancel()
            self.task = None

    async def _expire(self) -> None:
        """Ends the members whose deadlines pass before the model is ready."""
        deadlines = self.deadlines
        while self.waiting:
            nearest = min([deadlines[index] for index in self.waiting])
            await asyncio.sleep(max(0.0, nearest - self._clock()))
            now = self._clock()
            late = [index for index in self.waiting if deadlines[index] <= now]
            self.waiting = [index for index in self.waiting if deadlines[index] > now]
            if late:
                self._answer(self, late, rpc_status.as_service_error(TimeoutError(), ""))
        if self.task is not None:
            self.task.cancel()

    def _context(self) -> CallContext:
        """Returns the calls as other services are told of them that are asked on their behalf: by
        the request id of the first, and with the time that the last one has.
        """
        said = CallColumns.of(self.message)
        return CallContext(
            method=METHOD,
            request_id=said.request_ids[0],
            peer=said.peers[0],
            traceparent=said.traceparents[0],
            principal=self.principal,
            deadline=self.deadline,
        )

    def on_reply(self, indexes: Sequence[int], outcome: Outcome, /) -> None:
        """Answers the calls with these indexes."""
        self._answer(self, indexes, outcome)

    def fail(self, exc: Exception) -> None:
        """Answers the calls that wait with the error for an exception."""
        failed = self.waiting
        self.waiting = []
        if isinstance(exc, ServiceError | TimeoutError):
            self._answer(self, failed, rpc_status.as_service_error(exc, ""))
            return
        every = list(CallColumns.of(self.message).ids())
        ids = [every[index] for index in failed]
        self._log.error("unexpected_error", exc_info=exc, **logs.ids_of(ids))
        # The error names the request, so each call has its own.
        for index, (request_id, _) in zip(failed, ids, strict=True):
            self._answer(self, [index], rpc_status.as_service_error(exc, request_id))

    def cancel(self, id: int, invocations: Invocations) -> None:
        """Ends the call of this number, whose caller went away."""
        index = self.ids.index(id)
        if self.sent is not None:
            invocations.cancel_member(self, index)
        elif index in self.waiting:
            self.waiting.remove(index)
            if self.task is not None and not self.waiting:
                self.task.cancel()
