"""Calls the services behind the gateway: a channel each, bytes in and out, the caller's own token.

Messages are not parsed here, so that both doors use it alike. Errors are those of `wire.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.api_gateway.routing import exposed_services
from services.api_gateway.upstream.stream_status import StreamStatus
from services.chassis import context
from services.chassis.rpc_status import from_rpc
from stellwerk.wire import metadata as keys

# Seconds for a health check: a service that is up answers within milliseconds.
_HEALTH_TIMEOUT = 2.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(slots=True)
class Upstream:
    """A service behind the gateway, and the channel to it."""

    name: str
    address: str
    channel: grpc.aio.Channel
    calls: dict[str, Any] = field(default_factory=dict)

    def call(self, kind: str, method: str) -> Any:
        """Returns the callable of a method, bytes in and bytes out; made once for each method.

        `kind` is the channel's factory: unary_unary, unary_stream, stream_unary or stream_stream.
        """
        found = self.calls.get(method)
        if found is None:
            found = self.calls[method] = getattr(self.channel, kind)(method)
        return found

    async def problem(self) -> str:
        """Returns why the service does not serve, in a sentence; "" if it does."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT)
        except grpc.aio.AioRpcError as exc:
            return from_rpc(exc, self.name).message
        return "" if answer.status == _SERVING else f"the {self.name} is up but not ready to serve"


class Upstreams:
    """Finds the upstream that serves a method, and calls it."""

    def __init__(
        self, addresses: Mapping[str, str], connect: Callable[[str], grpc.aio.Channel]
    ) -> None:
        """Takes addresses by the names in `SERVED_BY`; `connect` opens a channel without
        interceptors.
        """
        self._connect = connect
        self.all = {
            name: Upstream(name, address, connect(address)) for name, address in addresses.items()
        }
        self._of_service = {
            service: self.all[name]
            for service, name in exposed_services.UPSTREAM_OF.items()
            if name in self.all
        }

    def add(self, name: str, address: str) -> None:
        """Adds a service whose address was not known before, such as this process itself."""
        upstream = self.all[name] = Upstream(name, address, self._connect(address))
        self._of_service.update(
            {s: upstream for s, n in exposed_services.UPSTREAM_OF.items() if n == name}
        )

    def of(self, method: str) -> Upstream:
        """Returns the upstream of a full method that is known to be exposed."""
        return self._of_service[method[1 : method.rindex("/")]]

    async def unary(self, method: str, request: bytes) -> bytes:
        """Calls a unary method for the current call and returns the response. Raises
        ServiceError.
        """
        upstream = self.of(method)
        call = upstream.call("unary_unary", method)(
            request, timeout=_remaining(), metadata=_metadata()
        )
        try:
            return bytes(await call)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(exc, upstream.name) from None

    def server_stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """Returns the messages of a server-streaming method. Closing the iterator cancels the
        call.
        """
        upstream = self.of(method)
        call = upstream.call("unary_stream", method)(
            request, timeout=_remaining(), metadata=_metadata()
        )
        return _messages(call, upstream.name)

    def bidi_stream(
        self, method: str, requests: AsyncIterable[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Returns the messages of a bidirectional method. Closing the iterator cancels the call."""
        upstream = self.of(method)
        call = upstream.call("stream_stream", method)(
            requests, timeout=_remaining(), metadata=_metadata()
        )
        return _messages(call, upstream.name)

    async def client_stream(self, method: str, requests: AsyncIterable[bytes]) -> bytes:
        """Sends messages and returns the response. If `requests` raises, the call is cancelled:
        the service must not take a part of the messages for all of them.
        """
        upstream = self.of(method)
        call = upstream.call("stream_unary", method)(timeout=_remaining(), metadata=_metadata())
        status = StreamStatus(call)
        try:
            async for request in requests:
                try:
                    await call.write(request)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    break  # The service answered before it read all; its response counts.
            else:
                await call.done_writing()
            return bytes(await call)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(await status.actual(exc), upstream.name) from None
        finally:
            call.cancel()


def loopback(listen: str, port: int) -> str:
    """Returns the address at which this process reaches its own server."""
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
    return call.onward()


def _metadata() -> list[tuple[str, str]]:
    """Returns the metadata of a call: request id, the caller's token, trace. Nothing else of the
    request's headers gets through.
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
