"""Guards every RPC of a server, in this order: context, log, authentication, authorisation, audit,
deadline, errors.

A server cannot be built without the guard; a method that has no access rule is not served.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc

from services.chassis import rpc_status
from services.chassis.access.audit import AuditTrail
from services.chassis.access.token_verifier import Authenticator
from services.chassis.context import CallContext
from services.chassis.rpc.reading import lenient, peek, read_call, readable
from services.chassis.rpc.rpc_log import RpcLog
from services.chassis.telemetry import Tracing
from stellwerk.wire.errors import Cancelled, NotPermitted, ServiceError, Unauthenticated
from stellwerk.wire.names import bucket_of
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, LIBRARY_RULES, Rule, authorise

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])
_BOUNDED = "ends_by_deadline"


def bounded(handler: _Handler) -> _Handler:
    """Marks a handler of unary calls that ends each by its deadline itself.

    The guard then sets no timer of its own for its calls.
    """
    setattr(handler, _BOUNDED, True)
    return handler


class Guard(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves the handlers of a server, each wrapped once by its method's access rule.

    It is a handler of handlers instead of an interceptor because grpc.aio runs interceptors in
    coroutines of their own for each call.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        handlers: Sequence[grpc.GenericRpcHandler],
        *,
        authenticator: Authenticator,
        audit: AuditTrail,
        calls: RpcLog,
        tracing: Tracing,
        longest_seconds: float,
    ) -> None:
        """Guards `handlers`, of which the first that knows a method serves it.

        `longest_seconds` bounds unary calls whose callers set no deadline or a later one.
        """
        self._rules = rules
        self._handlers = handlers
        self._authenticator = authenticator
        self._longest_seconds = longest_seconds
        self._wrapped: dict[str, Any] = {}
        self.audit = audit
        self.calls = calls
        self.tracing = tracing
        self.traces = tracing.exports

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Returns the guarded handler of a method, None if it has no handler or no rule."""
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            rule = self._rules.get(details.method)
            found = (handler.service(details) for handler in self._handlers)
            handler = next((handler for handler in found if handler is not None), None)
            if handler is None or rule is None:
                return None
            wrapped = handler if details.method in LIBRARY_RULES else self._wrap(rule, handler)
            self._wrapped[details.method] = wrapped
        if type(wrapped) is _UnaryMethod:
            return _UnaryCall(self, wrapped, details.invocation_metadata)
        return wrapped

    def _wrap(self, rule: Rule, handler: Any) -> Any:
        read, write = handler.request_deserializer, handler.response_serializer
        if read is not None and (rule.resource or not handler.request_streaming):
            read = lenient(read)
        if not handler.response_streaming:
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            bounded = hasattr(inner, _BOUNDED) and not rule.changes
            return _UnaryMethod(rule, inner, handler.request_streaming, bounded, read, write)
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
        # A handler may write its responses itself, which saves each the way through a generator.
        answer = inner if inspect.iscoroutinefunction(inner) else partial(_write_all, inner)
        stream = partial(self._serve_stream, rule, answer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, read, write)
        return grpc.unary_stream_rpc_method_handler(stream, read, write)

    async def _serve_stream(self, rule: Rule, answer: Any, request: Any, grpc_context: Any) -> None:
        call = self.begin(rule, grpc_context.invocation_metadata(), grpc_context)
        with _Observed(self, rule, call) as observed:
            await self.authenticate(rule, call)
            first, request = await peek(request, names_resource=bool(rule.resource))
            self.authorise(rule, call, first)
            await answer(request, grpc_context)
        if observed.error is not None:
            first = request = None
            await _abort(grpc_context, observed.error)

    def begin(self, rule: Rule, metadata: Any, grpc_context: Any) -> CallContext:
        """Returns the context of a call that begins, which is the current one from now on."""
        return read_call(rule, metadata, grpc_context, self._longest_seconds)

    async def authenticate(self, rule: Rule, call: CallContext) -> None:
        """Sets the call's principal before any message is read. Raises Unauthenticated."""
        if rule.permission != ANONYMOUS:
            call.token, call.principal = await self._authenticator.authenticate(call.token)

    def authorise(self, rule: Rule, call: CallContext, first: Any) -> None:
        """Raises NotPermitted unless the caller may do this to what the `first` message names."""
        if rule.resource:
            call.resource = rule.resource_of(first)
        if rule.permission in (ANONYMOUS, AUTHENTICATED) or call.principal is None:
            return
        authorise(call.principal.grants, rule.permission, bucket_of(call.resource))

    async def change(self, call: CallContext, make: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a change between its two audit records; without the first it is not made."""
        await self.audit.intend(call)
        outcome = "CANCELLED"
        try:
            response = await make()
            outcome = "OK"
            return response
        except Exception as exc:
            outcome = rpc_status.as_service_error(exc, call.request_id).reason
            raise
        finally:
            self.audit.conclude(call, outcome)


@dataclass(frozen=True, slots=True)
class _UnaryMethod:
    """A method with one response: its rule, its handler, and how its messages are read."""

    rule: Rule
    inner: Callable[[Any, Any], Awaitable[Any]]
    request_streaming: bool
    bounded: bool
    read: Callable[[bytes], Any] | None
    write: Callable[[Any], bytes] | None


class _UnaryCall:
    """The handler of one call with one response.

    It is made with the call's metadata, because grpc.aio reads the metadata anew whenever the
    context is asked for it.
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
        self._guard = guard
        self._method = method
        self._metadata = metadata
        self.request_deserializer = method.read
        self.response_serializer = method.write
        self.request_streaming = method.request_streaming

    async def serve(self, request: Any, grpc_context: Any) -> Any:
        """Answers the call, or ends it with a status."""
        guard, method = self._guard, self._method
        rule = method.rule
        call = guard.begin(rule, self._metadata, grpc_context)
        with _Observed(guard, rule, call) as observed:
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
        first = request = None
        await _abort(grpc_context, observed.error)
        return None

    unary_unary = stream_unary = serve


class _Observed:
    """Span, log line, metrics and error of one call.

    An exception in the block becomes `error`, with which the call is to end. A class, because a
    generator as a context manager costs more than everything done here.
    """

    __slots__ = ("_call", "_guard", "_rule", "_span", "_started", "error")

    def __init__(self, guard: Guard, rule: Rule, call: CallContext) -> None:
        self._guard = guard
        self._rule = rule
        self._call = call
        self._started = time.perf_counter()
        self._span = guard.tracing.begin(rule.method, call) if guard.traces else None
        self.error: ServiceError | None = None

    def __enter__(self) -> _Observed:
        return self

    def __exit__(self, _: Any, exc: BaseException | None, __: Any) -> bool:
        """Records the end of the call; keeps an exception back unless it cancels the call."""
        if exc is None:
            self._record(None)
            return True
        if isinstance(exc, Exception):
            self.error = rpc_status.as_service_error(exc, self._call.request_id)
            if self.error is not exc and self.error.code is grpc.StatusCode.INTERNAL:
                self._guard.calls.unexpected(self._call, exc)
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self.error = Cancelled("the caller went away")
        self._record(self.error)
        return isinstance(exc, Exception)

    def _record(self, error: ServiceError | None) -> None:
        guard, rule = self._guard, self._rule
        if self._span is not None:
            guard.tracing.end(self._span, "OK" if error is None else error.code.name)
        # A peer that refused the call has recorded it.
        if isinstance(error, Unauthenticated | NotPermitted) and not error.from_peer:
            guard.audit.refuse(self._call, error.reason)
        # Calls between services and probes succeed all the time; their lines are for debugging.
        quiet = error is None and (rule.internal or rule.permission == ANONYMOUS)
        guard.calls.note(self._call, error, time.perf_counter() - self._started, quiet=quiet)


async def _write_all(inner: Any, request: Any, grpc_context: Any) -> None:
    """Writes what the handler yields."""
    async with aclosing(inner(request, grpc_context)) as responses:
        async for response in responses:
            await grpc_context.write(response)


async def _abort(grpc_context: Any, error: ServiceError | None) -> None:
    """Ends a call with an error. The context keeps what this raises, and that the caller's frame:
    it should have let go of the request.
    """
    assert error is not None
    trailers = ((rpc_status.DETAILS, rpc_status.details(error)),)
    await grpc_context.abort(error.code, error.message, trailing_metadata=trailers)
