"""What surrounds every RPC, in this order: context → log → authenticate → authorise → audit → deadline → errors.

A server cannot be built without it; a method that has no access rule does not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from services.chassis import context, rpc_status
from services.chassis.audit import AuditSink, Journal
from services.chassis.auth import TokenVerifier, bearer
from services.chassis.context import CallContext
from services.chassis.reading import lenient, readable
from services.chassis.telemetry import CallMetrics, Tracing, valid_traceparent
from services.wire import metadata as keys
from services.wire.errors import Cancelled, NotPermitted, ServiceError, Unauthenticated
from services.wire.names import bucket_of
from services.wire.permissions import ANONYMOUS, AUTHENTICATED, LIBRARY_RULES, Rule, permits
from stellwerk.controlplane.v1 import audit_service_pb2 as audit

Exchange = Callable[[str], Awaitable[str]]


@dataclass(slots=True)
class Surroundings:
    """What the guard works with."""

    verifier: TokenVerifier
    ledger: AuditSink
    journal: Journal
    metrics: CallMetrics
    tracing: Tracing
    log: structlog.typing.FilteringBoundLogger
    max_deadline_seconds: float
    # Turns another credential than a token, such as an API key, into a token; the gateway sets it.
    exchange: Exchange | None = None


class Handlers:
    """Takes handlers as a server does, from the code that protoc writes, and keeps them for the guard."""

    def __init__(self) -> None:
        self.known: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds handlers; the first that knows a method serves it."""
        self.known.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: the same are among the generic ones, and grpc.aio waits anew for each registered method per call."""


class Guard(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All that a server serves: each handler behind what surrounds it, wrapped once, by its rule.

    A handler of handlers and no interceptor, which grpc.aio runs in coroutines of its own for each call.
    """

    def __init__(self, rules: Mapping[str, Rule], surroundings: Surroundings, handlers: Handlers) -> None:
        self._rules, self._with, self._handlers = rules, surroundings, handlers
        self._wrapped: dict[str, Any] = {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The guarded handler of a method, None for one that has no handler or no rule."""
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            rule = self._rules.get(details.method)
            found = (handler.service(details) for handler in self._handlers.known)
            handler = next((handler for handler in found if handler is not None), None)
            if handler is None or rule is None:
                return None
            wrapped = handler if details.method in LIBRARY_RULES else self._wrap(rule, handler)
            self._wrapped[details.method] = wrapped
        return wrapped

    def _wrap(self, rule: Rule, handler: Any) -> Any:
        read = handler.request_deserializer
        if read is not None and (rule.resource or not handler.request_streaming):
            read = lenient(read)
        coders = (read, handler.response_serializer)
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

            async def stream(request: Any, grpc_context: Any) -> AsyncGenerator[Any]:
                async with aclosing(self._serve_stream(rule, inner, request, grpc_context)) as responses:
                    async for response in responses:
                        yield response

            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, *coders)
            return grpc.unary_stream_rpc_method_handler(stream, *coders)
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def unary(request: Any, grpc_context: Any) -> Any:
            return await self._serve_unary(rule, inner, request, grpc_context)

        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(unary, *coders)
        return grpc.unary_unary_rpc_method_handler(unary, *coders)

    async def _serve_unary(self, rule: Rule, inner: Any, request: Any, grpc_context: Any) -> Any:
        with _Around(self, rule, self._begin(rule, grpc_context)) as around:
            call = around.call
            await self._authenticate(rule, call)
            async with asyncio.timeout(None if call.deadline is None else call.remaining()):
                request = await self._authorise(rule, call, request)
                if not rule.changes:
                    return await inner(request, grpc_context)
                return await self._change(call, lambda: inner(request, grpc_context))
        await _abort(grpc_context, around.error)
        return None

    async def _serve_stream(self, rule: Rule, inner: Any, request: Any, grpc_context: Any) -> AsyncGenerator[Any]:
        with _Around(self, rule, self._begin(rule, grpc_context)) as around:
            call = around.call
            await self._authenticate(rule, call)
            request = await self._authorise(rule, call, request)
            async with aclosing(inner(request, grpc_context)) as responses:
                async for response in responses:
                    yield response
        if around.error is not None:
            await _abort(grpc_context, around.error)

    def _begin(self, rule: Rule, grpc_context: Any) -> CallContext:
        given = {key: value for key, value in grpc_context.invocation_metadata() or () if isinstance(value, str)}
        request_id = given.get(keys.REQUEST_ID, "")
        call = CallContext(
            method=rule.method,
            request_id=request_id
            if 0 < len(request_id) <= keys.MAX_REQUEST_ID_LENGTH and request_id.isprintable()
            else context.new_request_id(),
            peer=_host(grpc_context.peer()),
            traceparent=valid_traceparent(given.get(keys.TRACEPARENT, "")),
            tracestate=given.get(keys.TRACESTATE, "")[:512],
            token=given.get(keys.AUTHORIZATION, ""),
        )
        self._set_deadline(rule, call, grpc_context)
        context.bind(call)
        return call

    async def _authenticate(self, rule: Rule, call: CallContext) -> None:
        """Establishes who asks before anything of the request is waited for, or raises."""
        if rule.permission == ANONYMOUS:
            return
        token = bearer(call.token)
        if self._with.exchange is not None:
            token = await self._with.exchange(token)
        call.token = token
        call.principal = self._with.verifier.verify(token)

    async def _authorise(self, rule: Rule, call: CallContext, request: Any) -> Any:
        """Raises unless the caller may do this; returns the request as the handler takes it."""
        first, request = await _peek(rule, request)
        call.resource = rule.resource_of(first)
        if rule.permission in (ANONYMOUS, AUTHENTICATED) or call.principal is None:
            return request
        bucket = bucket_of(call.resource)
        if not permits(call.principal.grants, rule.permission, bucket):
            where = f" on buckets/{bucket}" if bucket else ""
            raise NotPermitted(
                f"this needs the permission {rule.permission}{where}; ask an administrator for a role that has it",
                permission=rule.permission,
            )
        return request

    def _set_deadline(self, rule: Rule, call: CallContext, grpc_context: Any) -> None:
        """A unary call ends at its caller's deadline or our cap; a stream stays open unless its caller bounds it."""
        left = grpc_context.time_remaining()
        if left is None and rule.streaming:
            return
        cap = self._with.max_deadline_seconds
        call.deadline = time.monotonic() + (cap if left is None else left if rule.streaming else min(left, cap))

    async def _change(self, call: CallContext, make: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a change between its two audit records. Without the first one nothing is changed."""
        await self._with.ledger.append([_record(audit.AuditRecord.KIND_INTENT, call, "")])
        outcome = "CANCELLED"
        try:
            response = await make()
            outcome = "OK"
            return response
        except Exception as exc:
            outcome = rpc_status.mean(exc, call.request_id).reason
            raise
        finally:
            self._with.journal.note(_record(audit.AuditRecord.KIND_OUTCOME, call, outcome))

    def mean(self, exc: Exception, call: CallContext) -> ServiceError:
        """The error that the caller is told; what is a fault of ours is told to the log."""
        error = rpc_status.mean(exc, call.request_id)
        if error is not exc and error.code is grpc.StatusCode.INTERNAL:
            self._with.log.error("unexpected_error", method=call.method, exc_info=exc)
        return error

    def begin_span(self, rule: Rule, call: CallContext) -> Any:
        """The call's span, to be handed back to `end`."""
        return self._with.tracing.begin(rule.method, call)

    def end(self, rule: Rule, call: CallContext, error: ServiceError | None, started: float, span: Any) -> None:
        """Takes down how the call ended."""
        seconds = time.perf_counter() - started
        code = "OK" if error is None else error.code.name
        self._with.metrics.observe(rule.method, code, seconds)
        self._with.tracing.end(span, code)
        if isinstance(error, Unauthenticated | NotPermitted):
            self._with.journal.note(_record(audit.AuditRecord.KIND_REFUSAL, call, error.reason))
        level = self._with.log.info
        if error is None and (rule.internal or rule.permission == ANONYMOUS):
            level = self._with.log.debug
        level(
            "rpc",
            method=rule.method,
            code=code,
            reason=error.reason if error else None,
            ms=round(seconds * 1000, 2),
            principal=call.principal.name if call.principal else None,
            resource=call.resource or None,
            peer=call.peer,
        )


class _Around:
    """Log and errors around one call: an exception within is kept as the error that the call is to end with.

    A class, because a generator as a context manager costs more than all that is done here.
    """

    __slots__ = ("_guard", "_rule", "_span", "_started", "call", "error")

    def __init__(self, guard: Guard, rule: Rule, call: CallContext) -> None:
        self._guard, self._rule, self.call = guard, rule, call
        self._started = time.perf_counter()
        self._span = guard.begin_span(rule, call)
        self.error: ServiceError | None = None

    def __enter__(self) -> _Around:
        return self

    def __exit__(self, _: Any, exc: BaseException | None, __: Any) -> bool:
        if exc is None:
            self._guard.end(self._rule, self.call, None, self._started, self._span)
            return True
        if isinstance(exc, Exception):
            self.error = self._guard.mean(exc, self.call)
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self.error = Cancelled("the caller went away")
        self._guard.end(self._rule, self.call, self.error, self._started, self._span)
        return isinstance(exc, Exception)


async def _peek(rule: Rule, request: Any) -> tuple[Any, Any]:
    """The message that names the resource, and the request as the handler takes it."""
    if not hasattr(request, "__aiter__"):
        return readable(request), request
    if not rule.resource:
        return None, request
    iterator = request.__aiter__()
    first = readable(await anext(iterator, None))

    async def whole() -> AsyncGenerator[Any]:
        if first is not None:
            yield first
            async for message in iterator:
                yield readable(message)

    return first, whole()


def _host(peer: str) -> str:
    return peer.rsplit(":", 1)[0] if peer.startswith("ipv") else peer


def _record(kind: int, call: CallContext, outcome: str) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=kind,  # type: ignore[arg-type]
        principal=call.principal.name if call.principal else "",
        method=call.method,
        resource=call.resource[:512],
        request_id=call.request_id,
        outcome=outcome,
        peer=call.peer,
        count=1,
    )


async def _abort(grpc_context: Any, error: ServiceError | None) -> None:
    assert error is not None
    trailers = ((rpc_status.DETAILS, rpc_status.details(error)),)
    await grpc_context.abort(error.code, error.message, trailing_metadata=trailers)
