"""The platform behind a gateway, in one gRPC server: issues and vouches for tokens, records every
other call and answers as a test says."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health, health_pb2_grpc

from services.api_gateway.routing import exposed_services
from services.chassis import rpc_status
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2
from stellwerk.wire.errors import ServiceError, Unauthenticated
from tests.fakes import exchange
from tests.fakes.issuer import FakeIssuer

API_KEY = "swk_0123456789abcdef_" + "a" * 43
_IDENTITY = "/stellwerk.controlplane.v1.IdentityService/"
_AUDIT = "/stellwerk.controlplane.v1.AuditService/"

# Takes the request (for a streaming one, all of them) and the gRPC context; gives the answer or,
# for a stream, a list.
Script = Callable[[Any, Any], Awaitable[Any]]


@dataclass(slots=True)
class Call:
    """One call that arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining: float | None


@dataclass(slots=True)
class FakeUpstreams(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves every RPC of the platform's public services, and calls of models under the name
    Call.
    """

    issuer: FakeIssuer = field(default_factory=FakeIssuer)
    calls: list[Call] = field(default_factory=list)
    scripts: dict[str, Script] = field(default_factory=dict)
    # Answered before anything is read.
    early: dict[str, ServiceError] = field(default_factory=dict)
    records: list[audit.AuditRecord] = field(default_factory=list)
    exchanges: int = 0
    # Messages of clients' streams.
    pieces: int = 0
    cancelled: list[str] = field(default_factory=list)
    address: str = ""
    health: Any = field(default_factory=health.aio.HealthServicer)
    server: Any = None

    async def start(self) -> FakeUpstreams:
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        self.server.add_generic_rpc_handlers((self,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()
        return self

    async def stop(self) -> None:
        await self.server.stop(None)

    def answer(self, rpc: str, script: Script | Any) -> None:
        """From now on this RPC (its short name) is answered by a script, with a message, or by
        raising an error.
        """

        async def fixed(_request: Any, _context: Any) -> Any:
            if isinstance(script, ServiceError):
                raise script
            return script

        self.scripts[rpc] = script if callable(script) else fixed

    def last(self, rpc: str) -> Call:
        return next(call for call in reversed(self.calls) if call.method.endswith(f"/{rpc}"))

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == exchange.METHOD:
            return exchange.handler(self._call)
        service, _, name = details.method[1:].partition("/")
        descriptor = next((s for s in exposed_services.SERVED_BY if s.full_name == service), None)
        method = descriptor.methods_by_name.get(name) if descriptor is not None else None
        return None if method is None else self._handler(details.method, method)

    def _handler(self, full: str, method: MethodDescriptor) -> Any:
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)
        coders = (request_class.FromString, response_class.SerializeToString)

        async def unary(request: Any, context: Any) -> Any:
            if (error := self.early.get(method.name)) is not None:
                await _abort(context, error)
            if hasattr(request, "__aiter__"):
                request = await self._all(full, request, context)
            answer = await self._serve(full, request, context)
            return answer if answer is not None else response_class()

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            for message in await self._serve(full, request, context) or []:
                if isinstance(message, ServiceError):
                    await _abort(context, message)
                yield message

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, *coders)
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(unary, *coders)
        return grpc.unary_unary_rpc_method_handler(unary, *coders)

    async def _serve(self, full: str, request: Any, context: Any) -> Any:
        own = {
            _IDENTITY + "GetTrust": self._trust,
            _AUDIT + "AppendRecords": self._append,
            _IDENTITY + "IssueToken": self._issue,
        }.get(full)
        metadata = {
            key: value for key, value in context.invocation_metadata() if isinstance(value, str)
        }
        call = Call(full, request, metadata, context.time_remaining())
        script = self.scripts.get(full.rpartition("/")[2])
        try:
            if own is not None and script is None:
                return own(request)
            self.calls.append(call)
            return None if script is None else await script(request, context)
        except ServiceError as error:
            return await _abort(context, error)
        except BaseException:
            self.cancelled.append(full)
            raise

    async def _call(self, message: call_service_pb2.Call, token: str) -> AsyncGenerator[Any, None]:
        """A call of a model. Its script, under the name Call, gives its answer or yields all,
        `more` on all but one.
        """
        metadata = {"authorization": f"Bearer {token}", "x-request-id": message.request_id}
        self.calls.append(Call("/Call", message, metadata, message.timeout_ms / 1000))
        script = self.scripts.get("Call")
        try:
            if inspect.isasyncgenfunction(script):
                async for reply in script(message, None):
                    yield reply
            else:
                yield work_pb2.WorkReply() if script is None else await script(message, None)
        except asyncio.CancelledError:
            self.cancelled.append("/Call")
            raise

    async def _all(self, full: str, requests: Any, context: Any) -> list[Any]:
        """The messages of a client's stream. One that breaks off counts as cancelled."""
        messages = []
        try:
            async for message in requests:
                messages.append(message)
                self.pieces += 1
            # grpc.aio shows a broken stream as one that ended; sending fails on a stream that is no
            # more.
            await context.send_initial_metadata(())
        except BaseException:
            self.cancelled.append(full)
            raise
        return messages

    def _trust(self, _: Any) -> Any:
        return self.issuer.bundle()

    def _append(self, request: Any) -> Any:
        self.records += request.records
        return audit.AppendRecordsResponse(last_sequence=len(self.records))

    def _issue(self, request: Any) -> Any:
        if request.api_key == API_KEY:
            self.exchanges += 1
            return identity.IssueTokenResponse(
                access_token=self.issuer.token(), token_type="Bearer", expires_in=600
            )
        if request.api_key.startswith("sws_"):
            token = self.issuer.token("services/api_gateway", ("service.api_gateway", "*"))
            return identity.IssueTokenResponse(
                access_token=token, token_type="Bearer", expires_in=600
            )
        raise Unauthenticated("this key is not valid")


async def _abort(context: Any, error: ServiceError) -> Any:
    await context.abort(
        error.code, error.message, ((rpc_status.DETAILS, rpc_status.details(error)),)
    )
