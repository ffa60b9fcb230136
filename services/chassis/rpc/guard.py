"""What surrounds every RPC, in this order: context → log → authenticate → authorise → audit →
deadline → errors.

A server cannot be built without it; a method that has no access rule does not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog

from services.chassis import context, rpc_status
from services.chassis.access.audit import AuditSink, Journal
from services.chassis.access.token_verifier import TokenVerifier, bearer
from services.chassis.context import CallContext
from services.chassis.rpc.call_log import CallLog
from services.chassis.rpc.handlers import Handlers
from services.chassis.rpc.reading import lenient, peek, readable
from services.chassis.telemetry import Tracing, valid_traceparent
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import Cancelled, NotPermitted, ServiceError, Unauthenticated
from stellwerk.wire.names import bucket_of
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, LIBRARY_RULES, Rule, authorise

Exchange = Callable[[str], Awaitable[str]]
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])
_BOUNDED = "ends_by_deadline"


def bounded(handler: _Handler) -> _Handler:
    """Marks a handler of unary calls that ends each by its deadline itself, so that the guard needs
    no timer for it.
    """
    setattr(handler, _BOUNDED, True)
    return handler


@dataclass(slots=True)
class Surroundings:
    """What the guard works with."""

    verifier: TokenVerifier
    ledger: AuditSink
    journal: Journal
    calls: CallLog
    tracing: Tracing
    log: structlog.typing.FilteringBoundLogger
    max_deadline_seconds: float
    # Turns another credential than a token, such as an API key, into a token; the gateway sets it.
    exchange: Exchange | None = None


class Guard(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All that a server serves: each handler behind what surrounds it, wrapped once, by its rule.

    A handler of handlers and no interceptor, which grpc.aio runs in coroutines of its own for each
    call.
    """

    def __init__(
        self, rules: Mapping[str, Rule], surroundings: Surroundings, handlers: Handlers
    ) -> None:
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
        return (
            _Unary(self, wrapped, details.invocation_metadata)
            if type(wrapped) is _UnaryMethod
            else wrapped
        )

    def _wrap(self, rule: Rule, handler: Any) -> Any:
        read, write = handler.request_deserializer, handler.response_serializer
        if read is not None and (rule.resource or not handler.request_streaming):
            read = lenient(read)
        if not handler.response_streaming:
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            bounded = hasattr(inner, _BOUNDED) and not rule.changes
            return _UnaryMethod(rule, inner, handler.request_streaming, bounded, read, write)
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def stream(request: Any, grpc_context: Any) -> AsyncGenerator[Any]:
            async with aclosing(
                self._serve_stream(rule, inner, request, grpc_context)
            ) as responses:
                async for response in responses:
                    yield response

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, read, write)
        return grpc.unary_stream_rpc_method_handler(stream, read, write)

    async def _serve_stream(
        self, rule: Rule, inner: Any, request: Any, grpc_context: Any
    ) -> AsyncGenerator[Any]:
        call = self.begin(rule, grpc_context.invocation_metadata(), grpc_context)
        with _Around(self, rule, call) as around:
            await self.authenticate(rule, call)
            first, request = await peek(request, names_resource=bool(rule.resource))
            self.authorise(rule, call, first)
            async with aclosing(inner(request, grpc_context)) as responses:
                async for response in responses:
                    yield response
        if around.error is not None:
            await _abort(grpc_context, around.error)

    def begin(self, rule: Rule, metadata: Any, grpc_context: Any) -> CallContext:
        """The call that begins, as its metadata tells of it; the current one from now on."""
        given: dict[str, Any] = dict(metadata or ())
        call = CallContext(
            rule.method,
            _request_id(given),
            _host(grpc_context.peer()),
            token=given.get(keys.AUTHORIZATION, ""),
        )
        if keys.TRACEPARENT in given:
            call.traceparent = valid_traceparent(given[keys.TRACEPARENT])
            call.tracestate = given.get(keys.TRACESTATE, "")[:512]
        self._set_deadline(rule, call, grpc_context)
        context.bind(call)
        return call

    async def authenticate(self, rule: Rule, call: CallContext) -> None:
        """Establishes who asks before anything of the request is waited for, or raises."""
        if rule.permission == ANONYMOUS:
            return
        token = bearer(call.token)
        if self._with.exchange is not None:
            token = await self._with.exchange(token)
        call.token = token
        call.principal = self._with.verifier.verify(token)

    def authorise(self, rule: Rule, call: CallContext, first: Any) -> None:
        """Raises unless the caller may do this to what the `first` message names."""
        if rule.resource:
            call.resource = rule.resource_of(first)
        if rule.permission in (ANONYMOUS, AUTHENTICATED) or call.principal is None:
            return
        authorise(call.principal.grants, rule.permission, bucket_of(call.resource))

    def _set_deadline(self, rule: Rule, call: CallContext, grpc_context: Any) -> None:
        """A unary call ends at its caller's deadline or our cap; a stream stays open unless its
        caller bounds it.
        """
        left = grpc_context.time_remaining()
        if left is None and rule.streaming:
            return
        cap = self._with.max_deadline_seconds
        call.deadline = time.monotonic() + (
            cap if left is None else left if rule.streaming else min(left, cap)
        )

    async def change(self, call: CallContext, make: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a change between its two audit records. Without the first one nothing is
        changed.
        """
        await self._with.ledger.append([_record(audit.AuditRecord.KIND_INTENT, call, "")])
        outcome = "CANCELLED"
        try:
            response = await make()
            outcome = "OK"
            return response
        except Exception as exc:
            outcome = rpc_status.as_service_error(exc, call.request_id).reason
            raise
        finally:
            self._with.journal.note(_record(audit.AuditRecord.KIND_OUTCOME, call, outcome))

    def as_service_error(self, exc: Exception, call: CallContext) -> ServiceError:
        """Returns the error that the caller is told; logs the exception if it is a fault of ours."""
        error = rpc_status.as_service_error(exc, call.request_id)
        if error is not exc and error.code is grpc.StatusCode.INTERNAL:
            self._with.log.error("unexpected_error", method=call.method, exc_info=exc)
        return error

    def begin_span(self, rule: Rule, call: CallContext) -> Any:
        """The call's span, to be handed back to `end`."""
        return self._with.tracing.begin(rule.method, call)

    def end(
        self, rule: Rule, call: CallContext, error: ServiceError | None, started: float, span: Any
    ) -> None:
        """Takes down how the call ended."""
        if span is not None:
            self._with.tracing.end(span, "OK" if error is None else error.code.name)
        if error is not None and isinstance(error, Unauthenticated | NotPermitted):
            self._with.journal.note(_record(audit.AuditRecord.KIND_REFUSAL, call, error.reason))
        quiet = error is None and (rule.internal or rule.permission == ANONYMOUS)
        self._with.calls.note(call, error, time.perf_counter() - started, quiet=quiet)


@dataclass(frozen=True, slots=True)
class _UnaryMethod:
    """A method with one response, and how it is served."""

    rule: Rule
    inner: Callable[[Any, Any], Awaitable[Any]]
    request_streaming: bool
    bounded: bool
    read: Callable[[bytes], Any] | None
    write: Callable[[Any], bytes] | None


class _Unary:
    """The handler of one call, made with its metadata: grpc.aio reads that anew for whoever asks
    the context for it.
    """

    __slots__ = (
        "_guard",
        "_metadata",
        "_method",
        "request_deserializer",
        "request_streaming",
        "response_serializer",
    )
    response_streaming = False

    def __init__(self, guard: Guard, method: _UnaryMethod, metadata: Any) -> None:
        self._guard, self._method, self._metadata = guard, method, metadata
        self.request_deserializer, self.response_serializer = method.read, method.write
        self.request_streaming = method.request_streaming

    async def serve(self, request: Any, grpc_context: Any) -> Any:
        """Answers the call, or ends it with a status."""
        guard, method = self._guard, self._method
        rule = method.rule
        call = guard.begin(rule, self._metadata, grpc_context)
        with _Around(guard, rule, call) as around:
            await guard.authenticate(rule, call)
            if method.bounded and not method.request_streaming:
                guard.authorise(rule, call, readable(request))
                return await method.inner(request, grpc_context)
            async with asyncio.timeout(None if call.deadline is None else call.remaining()):
                first, request = await peek(request, names_resource=bool(rule.resource))
                guard.authorise(rule, call, first)
                if not rule.changes:
                    return await method.inner(request, grpc_context)
                return await guard.change(call, lambda: method.inner(request, grpc_context))
        await _abort(grpc_context, around.error)
        return None

    unary_unary = stream_unary = serve


class _Around:
    """Log and errors around one call: an exception within is kept as the error that the call is to
    end with.

    A class, because a generator as a context manager costs more than all that is done here.
    """

    __slots__ = ("_call", "_guard", "_rule", "_span", "_started", "error")

    def __init__(self, guard: Guard, rule: Rule, call: CallContext) -> None:
        self._guard, self._rule, self._call = guard, rule, call
        self._started = time.perf_counter()
        self._span = guard.begin_span(rule, call)
        self.error: ServiceError | None = None

    def __enter__(self) -> _Around:
        return self

    def __exit__(self, _: Any, exc: BaseException | None, __: Any) -> bool:
        if exc is None:
            self._guard.end(self._rule, self._call, None, self._started, self._span)
            return True
        if isinstance(exc, Exception):
            self.error = self._guard.as_service_error(exc, self._call)
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self.error = Cancelled("the caller went away")
        self._guard.end(self._rule, self._call, self.error, self._started, self._span)
        return isinstance(exc, Exception)


def _request_id(given: Mapping[str, Any]) -> str:
    """The caller's, or a new one where it gives none that can be kept."""
    request_id: str = given.get(keys.REQUEST_ID, "")
    usable = 0 < len(request_id) <= keys.MAX_REQUEST_ID_LENGTH and request_id.isprintable()
    return request_id if usable else context.new_request_id()


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
