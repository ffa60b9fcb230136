"""The services behind the gateway: one channel each, calls as bytes under the caller's own token.

Requests and answers are not looked into here, so both doors use it alike. Errors are those of
`wire.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.api_gateway.routing import exposed_services as public
from services.api_gateway.upstream.stream_status import Ending
from services.chassis import context
from services.chassis.rpc_status import from_rpc
from stellwerk.wire import metadata as keys
from stellwerk.wire.deadlines import onward

_HEALTH_TIMEOUT = 2.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(slots=True)
class Upstream:
    """One service and the way to it."""

    name: str
    address: str
    channel: grpc.aio.Channel
    calls: dict[str, Any] = field(default_factory=dict)

    def call(self, kind: str, method: str) -> Any:
        """The bytes-in, bytes-out callable of a method; made once. `kind` is unary_unary or one of
        its siblings.
        """
        found = self.calls.get(method)
        if found is None:
            found = self.calls[method] = getattr(self.channel, kind)(method)
        return found

    async def problem(self) -> str:
        """Why it does not serve, in a sentence; "" if it does."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT)
        except grpc.aio.AioRpcError as exc:
            return from_rpc(exc, self.name).message
        return "" if answer.status == _SERVING else f"the {self.name} is up but not ready to serve"


class Upstreams:
    """Finds the upstream of a method and calls it."""

    def __init__(
        self, addresses: Mapping[str, str], connect: Callable[[str], grpc.aio.Channel]
    ) -> None:
        """`addresses` by the names in `public.SERVED_BY`; `connect` opens a bare channel."""
        self._connect = connect
        self.all = {
            name: Upstream(name, address, connect(address)) for name, address in addresses.items()
        }
        self._of_service = {
            service: self.all[name]
            for service, name in public.UPSTREAM_OF.items()
            if name in self.all
        }

    def add(self, name: str, address: str) -> None:
        """Adds one whose address was not known before, such as this process itself."""
        upstream = self.all[name] = Upstream(name, address, self._connect(address))
        self._of_service.update({s: upstream for s, n in public.UPSTREAM_OF.items() if n == name})

    def of(self, method: str) -> Upstream:
        """The upstream of a full method that is known to be public."""
        return self._of_service[method[1 : method.rindex("/")]]

    async def unary(self, method: str, request: bytes) -> bytes:
        """Calls a unary method for the current call. Raises a ServiceError."""
        upstream = self.of(method)
        call = upstream.call("unary_unary", method)(
            request, timeout=_remaining(), metadata=_metadata()
        )
        try:
            return bytes(await call)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(exc, upstream.name) from None

    def server_stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """The messages of a server-streaming method. Closing the iterator cancels the call."""
        upstream = self.of(method)
        call = upstream.call("unary_stream", method)(
            request, timeout=_remaining(), metadata=_metadata()
        )
        return _messages(call, upstream.name)

    def bidi_stream(
        self, method: str, requests: AsyncIterable[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """The messages of a bidirectional method. Closing the iterator cancels the call."""
        upstream = self.of(method)
        call = upstream.call("stream_stream", method)(
            requests, timeout=_remaining(), metadata=_metadata()
        )
        return _messages(call, upstream.name)

    async def client_stream(self, method: str, requests: AsyncIterable[bytes]) -> bytes:
        """Sends messages and waits for the answer. If `requests` raises, the call is cancelled,
        never ended early.
        """
        upstream = self.of(method)
        call = upstream.call("stream_unary", method)(timeout=_remaining(), metadata=_metadata())
        ending = Ending(call)
        try:
            async for request in requests:
                try:
                    await call.write(request)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    break  # answered while we were still sending: the answer is what counts
            else:
                await call.done_writing()
            return bytes(await call)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(await ending.true(exc), upstream.name) from None
        finally:
            call.cancel()


def loopback(listen: str, port: int) -> str:
    """The address at which this process reaches a server of its own."""
    host = listen.rpartition(":")[0]
    return f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"


async def _messages(call: Any, peer: str) -> AsyncGenerator[bytes, None]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as exc:
        raise from_rpc(exc, peer) from None
    finally:
        call.cancel()


def _remaining() -> float | None:
    call = context.current()
    if call is None or call.deadline is None:
        return None
    return onward(call.remaining())


def _metadata() -> list[tuple[str, str]]:
    """What travels with a call: the caller's token, the request's id and its trace. Nothing else
    gets through.
    """
    call = context.current()
    if call is None:
        return []
    pairs = [(keys.REQUEST_ID, call.request_id)]
    if call.token:
        pairs.append((keys.AUTHORIZATION, f"Bearer {call.token}"))
    if call.traceparent:
        pairs.append((keys.TRACEPARENT, call.traceparent))
        if call.tracestate:
            pairs.append((keys.TRACESTATE, call.tracestate))
    return pairs
