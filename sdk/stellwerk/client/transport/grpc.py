"""The gRPC transport. Calls go by the RPC's path and messages: no stub is needed, and a new RPC
costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from stellwerk.client.errors import from_grpc
from stellwerk.client.transport.port import Target, user_agent
from stellwerk.client.transport.rpc import Rpc, rpc_of

# As much as the platform itself takes in one message.
MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Without keepalive a vanished peer is noticed only when the deadline passes.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A platform that restarts is found again quickly.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.primary_user_agent", user_agent()),
)


def _address(target: Target) -> str:
    return urlsplit(target.url).netloc


def _options(target: Target) -> list[tuple[str, Any]]:
    return [*_OPTIONS, ("grpc.enable_http_proxy", int(not target.loopback))]


def _credentials(target: Target) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(target.ca.read_bytes() if target.ca else None)


def _metadata(target: Target) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {target.token}"),) if target.token else ()


def _codec(rpc: Rpc) -> dict[str, Any]:
    return {
        "request_serializer": rpc.request.SerializeToString,
        "response_deserializer": rpc.response.FromString,
    }


def _piece(request: Message, data: bytes) -> Message:
    """One message of a stream of raw bytes; each names what it belongs to."""
    message = type(request)()
    message.CopyFrom(request)
    getattr(message, rpc_of(request).routes[0].body).data = data
    return message


def _raw(rpc: Rpc, answer: Message) -> bytes:
    data: bytes = getattr(answer, rpc.response_body).data
    return data


class GrpcTransport:
    """Blocking gRPC."""

    def __init__(self, target: Target, channel: grpc.Channel | None = None) -> None:
        self._address, self._metadata = _address(target), _metadata(target)
        if channel is None:
            options = _options(target)
            channel = (
                grpc.secure_channel(self._address, _credentials(target), options)
                if target.secure
                else grpc.insecure_channel(self._address, options)
            )
        self._channel = channel

    def call(self, request: Message, timeout: float) -> Message:
        rpc = rpc_of(request)
        try:
            method = self._channel.unary_unary(rpc.path, **_codec(rpc))
            answer: Message = method(request, timeout=timeout, metadata=self._metadata)
            return answer
        except grpc.RpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message:
        rpc = rpc_of(request)
        messages = (_piece(request, piece) for piece in pieces) if size else iter([request])
        try:
            method = self._channel.stream_unary(rpc.path, **_codec(rpc))
            answer: Message = method(messages, timeout=timeout, metadata=self._metadata)
            return answer
        except grpc.RpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    def download(self, request: Message, timeout: float) -> Iterator[bytes]:
        rpc = rpc_of(request)
        method = self._channel.unary_stream(rpc.path, **_codec(rpc))
        try:
            for answer in method(request, timeout=timeout, metadata=self._metadata):
                yield _raw(rpc, answer)
        except grpc.RpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """gRPC, awaited. The channel belongs to the event loop of the first call."""

    def __init__(self, target: Target) -> None:
        self._target, self._address, self._metadata = target, _address(target), _metadata(target)
        self._opened: grpc.aio.Channel | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            options = _options(self._target)
            self._opened = (
                grpc.aio.secure_channel(self._address, _credentials(self._target), options)
                if self._target.secure
                else grpc.aio.insecure_channel(self._address, options)
            )
        return self._opened

    async def call(self, request: Message, timeout: float) -> Message:
        rpc = rpc_of(request)
        try:
            method = self._channel.unary_unary(rpc.path, **_codec(rpc))
            answer: Message = await method(request, timeout=timeout, metadata=self._metadata)
            return answer
        except grpc.aio.AioRpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message:
        rpc = rpc_of(request)

        async def messages() -> AsyncIterator[Message]:
            if not size:
                yield request
            async for piece in pieces:
                yield _piece(request, piece)

        try:
            method = self._channel.stream_unary(rpc.path, **_codec(rpc))
            answer: Message = await method(messages(), timeout=timeout, metadata=self._metadata)
            return answer
        except grpc.aio.AioRpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    async def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]:
        rpc = rpc_of(request)
        method = self._channel.unary_stream(rpc.path, **_codec(rpc))
        try:
            async for answer in method(request, timeout=timeout, metadata=self._metadata):
                yield _raw(rpc, answer)
        except grpc.aio.AioRpcError as exc:
            raise from_grpc(exc, self._address, timeout) from None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
