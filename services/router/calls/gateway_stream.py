"""One gateway's stream of calls: takes its callers' calls, each under its caller's own token, and
gathers their answers.

A call of a model that is known and served, by a caller that is known, costs no task and waits for
nothing on its way to its queue.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from services.chassis import context, logs, rpc_status
from services.chassis.access.token_verifier import REFUSAL, TokenVerifier
from services.chassis.bounded_cache import BoundedCache
from services.chassis.context import HOP_SECONDS, CallContext, Principal
from services.router.calls.call_group import CallGroup
from services.router.calls.call_log import METHOD, CallColumns, CallLog
from services.router.calls.invocations import Invocations
from services.router.naming.target import ModelTarget
from services.router.queueing.pending_requests import Outcome
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import ServiceError, Unauthenticated, Unavailable, to_work_error
from stellwerk.wire.frames import FrameBuffer, tag
from stellwerk.wire.names import ModelName, parse_inference_name
from stellwerk.wire.permissions import authorise

# Answers and bytes of one frame: a larger one does not amortise better.
_MAX_ANSWERS = 256
_MAX_BYTES = 1024 * 1024
_ANSWER = tag(messages.ExchangeResponse, "answers")
_REPLY = tag(messages.Answer, "reply")
_ANSWER_GROUP = tag(messages.ExchangeResponse, "groups")
_GROUP_REPLY = tag(messages.AnswerGroup, "reply")
_PERMISSION = "infer"
# Pairs of credential and bucket that a stream remembers as allowed.
_MAX_ALLOWED = 10_000
STOPPING = "the router is stopping; try again in a moment"

_parse = functools.lru_cache(maxsize=16_384)(parse_inference_name)


class _Call:
    """An invocation by a gateway's caller, from its frame to its last answer."""

    __slots__ = (
        "answered",
        "deadline",
        "id",
        "message",
        "parts",
        "principal",
        "started",
        "stream",
        "target",
        "task",
        "work",
    )

    def __init__(self, stream: GatewayStream, message: messages.Call) -> None:
        self.stream = stream
        self.message = message
        self.work = message.work
        self.started = stream.clock()
        self.deadline = self.started + message.timeout_ms / 1000 - HOP_SECONDS
        self.principal: Principal | None = None
        # Set by `Invocations`: the version, and the id to cancel the work by.
        self.target: ModelTarget | None = None
        self.id = ""
        # When the last answer was given, and the number of answers, of a call that gets several.
        self.answered = self.started
        self.parts = 0
        # The task that sends the work when its model is ready.
        self.task: asyncio.Task[None] | None = None

    def on_reply(self, outcome: Outcome, /) -> None:
        """Answers the call."""
        self.stream.answer(self, outcome)

    def lap(self) -> float:
        """Returns the seconds since the answer before this one."""
        before = self.answered
        self.answered = self.stream.clock()
        return self.answered - before

    def context(self) -> CallContext:
        """Returns the call as other services are told of it that are asked on its behalf."""
        return CallContext(
            method=METHOD,
            request_id=self.message.request_id,
            peer=self.message.peer,
            traceparent=self.message.traceparent,
            principal=self.principal,
            deadline=self.deadline,
        )


class GatewayStream:
    """One gateway's stream: the calls it carries, and the answers that go back."""

    def __init__(
        self,
        invocations: Invocations,
        verifier: TokenVerifier,
        call_log: CallLog,
        log: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._invocations = invocations
        self._verifier = verifier
        self._call_log = call_log
        self._log = log
        # The callers' tokens by the gateway's numbers for them.
        self._tokens: dict[int, str] = {}
        # Credentials and buckets that were found to go together.
        self._allowed: BoundedCache[tuple[int, str], None] = BoundedCache(_MAX_ALLOWED)
        # A group stands here once for each of its calls.
        self.calls: dict[int, _Call | CallGroup] = {}
        self.outgoing = FrameBuffer(
            _ANSWER,
            _REPLY,
            _MAX_ANSWERS,
            _MAX_BYTES,
            group_tag=_ANSWER_GROUP,
            group_inner_tag=_GROUP_REPLY,
        )
        self._wake = asyncio.Event()
        self._draining = False

    async def read(self, frames: AsyncIterator[messages.ExchangeRequest]) -> None:
        """Takes frames until the gateway ends the stream."""
        async for frame in frames:
            self._take(frame)

    async def write(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends a greeting, an empty frame, and then answers in frames, serialised. Returns when
        the stream drains and no call is left.
        """
        await send(b"")
        while True:
            while parts := self.outgoing.take():
                await send(b"".join(parts))
            if self._draining and not self.calls:
                return
            self._wake.clear()
            await self._wake.wait()

    def drain(self) -> None:
        """Takes no more calls."""
        self._draining = True
        self._wake.set()

    def _take(self, frame: messages.ExchangeRequest) -> None:
        """Begins the calls of a frame and ends those that it cancels."""
        for credential in frame.credentials:
            self._tokens[credential.id] = credential.token
        count = len(frame.calls)
        for message in frame.calls:
            self._begin(message)
        for group in frame.groups:
            self._begin_group(group)
            count += len(group.ids)
        if count:
            # One line for all of them: a line for each would cost more than the calls themselves.
            alone = ((call.request_id, call.traceparent) for call in frame.calls)
            grouped = (CallColumns.of(group).ids() for group in frame.groups)
            ids = itertools.chain(alone, itertools.chain.from_iterable(grouped))
            logs.write_for(self._log, logging.INFO, "calls", ids, count=count)
        for id in frame.cancelled:
            self._cancel(id)
        for id in frame.dropped_credentials:
            self._tokens.pop(id, None)
        if frame.dropped_credentials:
            self._allowed.clear()

    def _begin(self, message: messages.Call) -> None:
        call = self.calls[message.id] = _Call(self, message)
        try:
            if self._draining:
                raise Unavailable(STOPPING)
            name = self._admit(call)
            facts = call.work.context
            facts[keys.REQUEST_ID] = message.request_id
            if message.traceparent:
                facts[keys.TRACEPARENT] = message.traceparent
            if not self._invocations.send_if_ready(call, name):
                call.task = asyncio.create_task(self._send_when_ready(call, name))
        except Exception as exc:
            self._fail(call, exc)

    def _begin_group(self, message: messages.CallGroup) -> None:
        group = CallGroup(message, self.answer_members, self.clock, self._log)
        self.calls.update(dict.fromkeys(group.ids, group))
        try:
            if self._draining:
                raise Unavailable(STOPPING)
            group.send(self._invocations, self._admit(group))
        except Exception as exc:
            group.fail(exc)

    def _admit(self, call: _Call | CallGroup) -> ModelName:
        """Establishes the caller and returns the name of the model that it calls. Raises
        Unauthenticated, NotPermitted, InvalidInput.
        """
        message = call.message
        token = self._tokens.get(message.credential)
        if token is None:
            raise Unauthenticated(REFUSAL)
        call.principal = principal = self._verifier.verify(token)
        name = _parse(message.model, message.version)
        asked = (message.credential, name.bucket)
        if asked not in self._allowed:
            authorise(principal.grants, _PERMISSION, name.bucket)
            self._allowed.keep(asked, None)
        call.work.context[keys.PRINCIPAL] = principal.name
        return name

    async def _send_when_ready(self, call: _Call, name: ModelName) -> None:
        context.bind(call.context())
        try:
            async with asyncio.timeout(max(0.0, call.deadline - self.clock())):
                await self._invocations.send_when_ready(call, name)
            call.task = None
        except Exception as exc:
            self._fail(call, exc)

    def _fail(self, call: _Call, exc: Exception) -> None:
        error = rpc_status.as_service_error(exc, call.message.request_id)
        if error is not exc and not isinstance(exc, TimeoutError):
            self._log.error("unexpected_error", request_id=call.message.request_id, exc_info=exc)
        self.answer(call, error)

    def answer(self, call: _Call, outcome: Outcome) -> None:
        """Records an outcome of a call and puts it into the next frame as an answer."""
        message = call.message
        reply = (
            work_pb2.WorkReply(error=to_work_error(outcome))
            if isinstance(outcome, ServiceError)
            else outcome
        )
        if not reply.more and self.calls.pop(message.id, None) is None:
            return
        version = call.target.name if call.target is not None else ""
        if reply.more or call.parts:
            self._call_log.record_part(version, call.parts, reply, call.lap())
            call.parts += 1
        seconds = self.clock() - call.started
        self._call_log.record(message, call.principal, version, outcome, seconds)
        head = messages.Answer(id=message.id, model_version=version).SerializeToString()
        self.outgoing.put((head, reply.SerializeToString()))
        self._wake.set()

    def answer_members(self, group: CallGroup, indexes: Sequence[int], outcome: Outcome) -> None:
        """Records one outcome of calls of a group and puts it into the next frame as one answer."""
        if not indexes:
            return
        ids = [group.ids[index] for index in indexes]
        for id in ids:
            self.calls.pop(id, None)
        version = group.target.name if group.target is not None else ""
        seconds = self.clock() - group.started
        self._call_log.record_members(
            group.message, indexes, group.principal, version, outcome, seconds
        )
        head = messages.AnswerGroup(ids=ids, model_version=version).SerializeToString()
        reply = (
            work_pb2.WorkReply(error=to_work_error(outcome))
            if isinstance(outcome, ServiceError)
            else outcome
        )
        self.outgoing.put((head, reply.SerializeToString(), len(ids)))
        self._wake.set()

    def _cancel(self, id: int) -> None:
        call = self.calls.pop(id, None)
        if call is None:
            return
        if isinstance(call, CallGroup):
            call.cancel(id, self._invocations)
            return
        if call.parts and call.target is not None:
            self._call_log.record_part(call.target.name, call.parts, None, call.lap())
        if call.task is not None:
            call.task.cancel()
            call.task = None  # It keeps how it was cancelled, and that the call.
        else:
            self._invocations.cancel(call)

    def close(self) -> None:
        """Ends all calls, since their stream has ended."""
        for id in list(self.calls):
            self._cancel(id)
