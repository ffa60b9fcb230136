"""CallService: the calls of a gateway's callers over one stream, each under its caller's own token.
A call that is known, allowed and served costs no task and waits for nothing on its way to its
queue."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from services.chassis import context, rpc_status
from services.chassis.access.token_verifier import REFUSAL, TokenVerifier
from services.chassis.context import CallContext, Principal
from services.router.calls.call_log import METHOD, CallJournal
from services.router.calls.invocations import Predictions
from services.router.naming.target import Callee
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import metadata as keys
from stellwerk.wire.deadlines import HOP_SECONDS
from stellwerk.wire.errors import (
    ServiceError,
    Unauthenticated,
    Unavailable,
    to_work_error,
)
from stellwerk.wire.frames import FrameBuffer, tag, varint
from stellwerk.wire.names import ModelName, parse_inference_name
from stellwerk.wire.permissions import authorise

# Bounds of one frame of answers.
_MAX_ANSWERS = 256
_MAX_BYTES = 1024 * 1024
_ANSWER = tag(messages.ExchangeResponse, "answers")
_REPLY = tag(messages.Answer, "reply")
_PERMISSION = "infer"
_MAX_ALLOWED = 10_000

parse = functools.lru_cache(maxsize=16_384)(parse_inference_name)


class _Call:
    """A call in hand. Called with each of its answers, or with the error that ends it."""

    __slots__ = (
        "answered",
        "callee",
        "exchange",
        "id",
        "message",
        "parts",
        "principal",
        "started",
        "task",
    )

    def __init__(self, exchange: Exchange, message: messages.Call) -> None:
        self.exchange, self.message = exchange, message
        self.started = self.answered = time.monotonic()
        # Answers that were given, if it gets several.
        self.parts = 0
        self.principal: Principal | None = None
        self.callee: Callee | None = None
        # How to stop it: its id at the dispatcher, or the task that brings its model up.
        self.id = ""
        self.task: asyncio.Task[None] | None = None

    def __call__(self, outcome: work_pb2.WorkReply | ServiceError) -> None:
        self.exchange.answer(self, outcome)

    def lap(self) -> float:
        """Seconds since the answer before this one."""
        before, self.answered = self.answered, time.monotonic()
        return self.answered - before

    @property
    def deadline(self) -> float:
        """In time.monotonic()."""
        return self.started + self.message.timeout_ms / 1000 - HOP_SECONDS

    def context(self) -> CallContext:
        """The call as those need it that other services are asked for."""
        return CallContext(
            method=METHOD,
            request_id=self.message.request_id,
            peer=self.message.peer,
            traceparent=self.message.traceparent,
            principal=self.principal,
            deadline=self.deadline,
        )


class Exchange:
    """One gateway's stream: what it asked and what goes back."""

    def __init__(
        self, predictions: Predictions, verifier: TokenVerifier, journal: CallJournal, log: Any
    ) -> None:
        self._predictions, self._verifier, self._journal, self._log = (
            predictions,
            verifier,
            journal,
            log,
        )
        self._tokens: dict[int, str] = {}
        self._allowed: set[tuple[int, str]] = set()
        self.calls: dict[int, _Call] = {}
        self.outgoing = FrameBuffer(_ANSWER, _MAX_ANSWERS, _MAX_BYTES)
        self.wake = asyncio.Event()
        self.draining = False

    def take(self, frame: messages.ExchangeRequest) -> None:
        """Begins the frame's calls and ends those that nobody waits for."""
        for credential in frame.credentials:
            self._tokens[credential.id] = credential.token
        for call in frame.calls:
            self._begin(call)
        if frame.calls:
            # One line for all of them: a line for each would cost more than the calls themselves.
            self._log.info(
                "calls", count=len(frame.calls), requests=[call.request_id for call in frame.calls]
            )
        for id in frame.cancelled:
            self._cancel(id)
        for id in frame.dropped_credentials:
            self._tokens.pop(id, None)
        if frame.dropped_credentials:
            self._allowed.clear()

    def _begin(self, message: messages.Call) -> None:
        call = self.calls[message.id] = _Call(self, message)
        try:
            if self.draining:
                raise Unavailable("the router is stopping; try again in a moment")
            name = self._admit(call)
            callee = self._predictions.known(name)
            if callee is not None:
                call.callee = callee
                demand = self._predictions.demand(callee)
                if self._predictions.serving.fleet.ready(demand.key):
                    call.id = self._predictions.send(
                        callee, demand, message.work, call.deadline, call
                    )
                    return
            call.task = asyncio.create_task(self._bring_up(call, name))
        except Exception as exc:
            self._fail(call, exc)

    def _admit(self, call: _Call) -> ModelName:
        """Who asks, and whether they may. Raises Unauthenticated, NotPermitted, InvalidInput."""
        message = call.message
        token = self._tokens.get(message.credential)
        if token is None:
            raise Unauthenticated(REFUSAL)
        call.principal = principal = self._verifier.verify(token)
        name = parse(message.model, message.version)
        asked = (message.credential, name.bucket)
        if asked not in self._allowed:
            authorise(principal.grants, _PERMISSION, name.bucket)
            if len(self._allowed) >= _MAX_ALLOWED:
                self._allowed.clear()
            self._allowed.add(asked)
        facts = message.work.context
        facts[keys.REQUEST_ID] = message.request_id
        facts[keys.PRINCIPAL] = principal.name
        if message.traceparent:
            facts[keys.TRACEPARENT] = message.traceparent
        return name

    async def _bring_up(self, call: _Call, name: ModelName) -> None:
        """The long way: asks what the name means, has the model served, then sends."""
        call.task = asyncio.current_task()
        context.bind(call.context())
        try:
            async with asyncio.timeout(max(0.0, call.deadline - time.monotonic())):
                call.callee = callee = await self._predictions.find(name)
                callee.method(call.message.work.method)
                demand = self._predictions.demand(callee)
                if not self._predictions.serving.fleet.ready(demand.key):
                    await self._predictions.serving.ready(demand, call.deadline)
            call.id = self._predictions.send(callee, demand, call.message.work, call.deadline, call)
            call.task = None
        except Exception as exc:
            self._fail(call, exc)

    def _fail(self, call: _Call, exc: Exception) -> None:
        error = rpc_status.as_service_error(exc, call.message.request_id)
        if error is not exc and not isinstance(exc, TimeoutError):
            self._log.error("unexpected_error", request_id=call.message.request_id, exc_info=exc)
        self.answer(call, error)

    def answer(self, call: _Call, outcome: work_pb2.WorkReply | ServiceError) -> None:
        """Takes down an answer and puts it into the next frame."""
        message, callee = call.message, call.callee
        reply = (
            work_pb2.WorkReply(error=to_work_error(outcome))
            if isinstance(outcome, ServiceError)
            else outcome
        )
        if not reply.more:
            if self.calls.pop(message.id, None) is None:
                return
            if self.draining and not self.calls:
                self.wake.set()
        version = callee.name if callee is not None else ""
        if reply.more or call.parts:
            self._journal.note_part(version, call.parts, reply, call.lap())
            call.parts += 1
        self._journal.note(
            message, call.principal, version, outcome, time.monotonic() - call.started
        )
        head = messages.Answer(id=message.id, model_version=version).SerializeToString()
        body = reply.SerializeToString()
        size = varint(len(body))
        self.outgoing.put(len(head) + len(_REPLY) + len(size) + len(body), head, _REPLY, size, body)
        self.wake.set()

    def _cancel(self, id: int) -> None:
        call = self.calls.pop(id, None)
        if call is None:
            return
        if call.parts and call.callee is not None:
            self._journal.note_part(call.callee.name, call.parts, None, call.lap())
        if call.task is not None:
            call.task.cancel()
        elif call.id:
            self._predictions.cancel(call.id)

    def close(self) -> None:
        """The stream is no more: nobody waits for anything."""
        for id in list(self.calls):
            self._cancel(id)


class CallServicer:
    """All gateways' streams."""

    def __init__(
        self, predictions: Predictions, verifier: TokenVerifier, journal: CallJournal, log: Any
    ) -> None:
        self._make = functools.partial(Exchange, predictions, verifier, journal, log)
        self._exchanges: set[Exchange] = set()
        self._empty = asyncio.Event()
        self._draining = False

    async def Exchange(
        self, requests: AsyncIterator[messages.ExchangeRequest], _: Any
    ) -> AsyncGenerator[bytes]:
        """Frames of answers, serialised."""
        if self._draining:
            raise Unavailable("the router is stopping; try again in a moment")
        exchange = self._make()
        self._exchanges.add(exchange)
        reader = asyncio.create_task(_read(requests, exchange))
        reader.add_done_callback(lambda _: exchange.wake.set())
        try:
            yield b""  # the greeting, an empty frame: calls are taken from now on
            while True:
                while parts := exchange.outgoing.take():
                    yield b"".join(parts)
                if exchange.draining and not exchange.calls:
                    return
                if reader.done():
                    await reader  # raises what ended it
                    return
                exchange.wake.clear()
                await exchange.wake.wait()
        finally:
            reader.cancel()
            exchange.close()
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._empty.set()

    async def drain(self) -> None:
        """Takes no more calls; returns when those in hand are answered."""
        self._draining = True
        for exchange in self._exchanges:
            exchange.draining = True
            exchange.wake.set()
        if self._exchanges:
            await self._empty.wait()


async def _read(requests: AsyncIterator[messages.ExchangeRequest], exchange: Exchange) -> None:
    async for frame in requests:
        exchange.take(frame)


def add_to_server(servicer: CallServicer, server: grpc.aio.Server) -> None:
    """As protoc's function of that name would, but for answers that are serialised already."""
    handler: Any = grpc.stream_stream_rpc_method_handler(
        servicer.Exchange, request_deserializer=messages.ExchangeRequest.FromString
    )
    service = messages.DESCRIPTOR.services_by_name["CallService"].full_name
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Exchange": handler}),)
    )
