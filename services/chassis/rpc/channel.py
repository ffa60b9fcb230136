"""The channel for calls to other services.

It adds the service's own token, passes on deadline, request id and trace, and raises the class of
error that the peer raised. A service gets no other channel, so nothing can be forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from services.chassis import context
from services.chassis.rpc_status import from_rpc
from stellwerk.wire import metadata as keys

Metadata = Sequence[tuple[str, str]]
TokenSource = Callable[[], Awaitable[str]]
# Seconds that a call between services may take if it serves no caller with a deadline.
DEFAULT_TIMEOUT = 10.0


def _propagated() -> list[tuple[str, str]]:
    call = context.current()
    if call is None:
        return [(keys.REQUEST_ID, context.new_request_id())]
    pairs = [
        (keys.REQUEST_ID, call.request_id),
        (keys.TRACEPARENT, call.traceparent),
        (keys.TRACESTATE, call.tracestate),
    ]
    return [(key, value) for key, value in pairs if value]


def remaining(timeout: float | None) -> float:
    """Returns the seconds an onward call gets: the given timeout, never more than the caller's time
    less the share of this hop. Raises DeadlinePassed if that leaves none.
    """
    call = context.current()
    if call is None or call.deadline is None:
        return DEFAULT_TIMEOUT if timeout is None else timeout
    left = call.onward()
    return left if timeout is None else min(left, timeout)


class StreamCall:
    """An open stream in both directions. Use it in a `with` block: errors of gRPC leave the block
    as ServiceErrors, and the stream is cancelled at its end.

    Iterate it, or use `read`, which returns the next message or grpc.aio.EOF, and `write`, which
    sends one. All are gRPC's own, because a coroutine around each message would cost more than most
    messages.
    """

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self._peer = peer
        self.read = call.read
        self.write = call.write

    def __aiter__(self) -> AsyncIterator[Any]:
        messages: AsyncIterator[Any] = self._call.__aiter__()
        return messages

    def __enter__(self) -> StreamCall:
        return self

    def __exit__(self, _: Any, exc: BaseException | None, __: Any) -> None:
        self._call.cancel()
        if isinstance(exc, grpc.aio.AioRpcError):
            raise from_rpc(exc, self._peer) from None


class ServiceChannel:
    """A channel for generated stubs, in place of gRPC's own. `peer` is its name in errors."""

    def __init__(self, channel: grpc.aio.Channel, peer: str, token: TokenSource | None) -> None:
        self._channel = channel
        self._peer = peer
        self._token = token

    async def _metadata(self, extra: Metadata | None) -> list[tuple[str, str]]:
        pairs = [*_propagated(), *(extra or ())]
        if self._token is not None:
            pairs.append((keys.AUTHORIZATION, f"Bearer {await self._token()}"))
        return pairs

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Awaitable[Any]]:
        """Returns the callable of a method, as gRPC's channel does."""
        inner = self._channel.unary_unary(method, *args, **kwargs)

        async def call(
            request: Any, *, timeout: float | None = None, metadata: Metadata | None = None
        ) -> Any:
            try:
                return await inner(
                    request, timeout=remaining(timeout), metadata=await self._metadata(metadata)
                )
            except grpc.aio.AioRpcError as exc:
                raise from_rpc(exc, self._peer) from None

        return call

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Awaitable[Any]]:
        """Returns the callable of a method, as gRPC's channel does."""
        inner = self._channel.stream_unary(method, *args, **kwargs)

        async def call(
            requests: AsyncIterator[Any],
            *,
            timeout: float | None = None,
            metadata: Metadata | None = None,
        ) -> Any:
            try:
                return await inner(
                    requests, timeout=timeout, metadata=await self._metadata(metadata)
                )
            except grpc.aio.AioRpcError as exc:
                raise from_rpc(exc, self._peer) from None

        return call

    def unary_stream(
        self, method: str, *args: Any, **kwargs: Any
    ) -> Callable[..., AsyncIterator[Any]]:
        """Returns the callable of a method, as gRPC's channel does."""
        inner = self._channel.unary_stream(method, *args, **kwargs)

        async def call(
            request: Any, *, timeout: float | None = None, metadata: Metadata | None = None
        ) -> AsyncIterator[Any]:
            stream = inner(request, timeout=timeout, metadata=await self._metadata(metadata))
            try:
                async for message in stream:
                    yield message
            except grpc.aio.AioRpcError as exc:
                raise from_rpc(exc, self._peer) from None
            finally:
                stream.cancel()

        return call

    def stream_stream(
        self, method: str, *args: Any, **kwargs: Any
    ) -> Callable[..., Awaitable[StreamCall]]:
        """Returns the callable of a method. Await it for the stream: it may wait for a token."""
        inner = self._channel.stream_stream(method, *args, **kwargs)

        async def call(
            requests: AsyncIterator[Any] | None = None, *, metadata: Metadata | None = None
        ) -> StreamCall:
            return StreamCall(inner(requests, metadata=await self._metadata(metadata)), self._peer)

        return call

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
