"""gRPC, blocking and awaited. Calls go by the RPC's path and messages, so that no stub is
needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from stellwerk.client.errors import ServiceError, from_grpc, identified
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.port import new_request_id, refusal, user_agent
from stellwerk.client.transport.rpc import Rpc, rpc_of
from stellwerk.wire.metadata import AUTHORIZATION, REQUEST_ID

# 64 MiB, the most that the platform takes in one message.
MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished is noticed after 30 s; without keepalive only when the deadline passes.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A platform that restarts is found again within 0.1 to 5 s; gRPC would wait up to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.primary_user_agent", user_agent()),
)


def _address(endpoint: Endpoint) -> str:
    return urlsplit(endpoint.url).netloc


def _options(endpoint: Endpoint) -> list[tuple[str, Any]]:
    return [*_OPTIONS, ("grpc.enable_http_proxy", int(not endpoint.loopback))]


def _credentials(endpoint: Endpoint) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(endpoint.ca.read_bytes() if endpoint.ca else None)


class _Sender:
    """Gives each attempt its metadata, and each error the id of its request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._address = _address(endpoint)
        token = endpoint.token
        self._metadata = ((AUTHORIZATION, f"Bearer {token}"),) if token else ()

    def _attempt(self, timeout: float) -> tuple[str, dict[str, Any]]:
        """Returns the id of a new request and the options of its call."""
        request_id = new_request_id()
        metadata = (*self._metadata, (REQUEST_ID, request_id))
        return request_id, {"timeout": timeout, "metadata": metadata}

    def _failure(
        self,
        exc: grpc.RpcError | grpc.aio.AioRpcError,
        request: Message,
        request_id: str,
        timeout: float,
    ) -> ServiceError:
        error = refusal(from_grpc(exc, self._address, timeout), request, self._endpoint)
        return identified(error, request_id)


def _codec(rpc: Rpc) -> dict[str, Any]:
    return {
        "request_serializer": rpc.request.SerializeToString,
        "response_deserializer": rpc.response.FromString,
    }


def _piece(request: Message, data: bytes) -> Message:
    """Returns one message of a stream of raw bytes; each repeats the fields of the request."""
    message = type(request)()
    message.CopyFrom(request)
    getattr(message, rpc_of(request).routes[0].body).data = data
    return message


def _raw(rpc: Rpc, answer: Message) -> bytes:
    data: bytes = getattr(answer, rpc.response_body).data
    return data


class GrpcTransport(_Sender):
    """Sends requests over one gRPC channel, blocking. Several threads may use it at once."""

    def __init__(self, endpoint: Endpoint, channel: grpc.Channel | None = None) -> None:
        super().__init__(endpoint)
        if channel is None:
            options = _options(endpoint)
            channel = (
                grpc.secure_channel(self._address, _credentials(endpoint), options)
                if endpoint.secure
                else grpc.insecure_channel(self._address, options)
            )
        self._channel = channel

    def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)
        try:
            answer: Message = self._channel.unary_unary(rpc.path, **_codec(rpc))(request, **options)
            return answer
        except grpc.RpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)
        # A stream has one message at least, so an empty body is the request alone.
        messages = (_piece(request, piece) for piece in pieces) if size else iter([request])
        try:
            method = self._channel.stream_unary(rpc.path, **_codec(rpc))
            answer: Message = method(messages, **options)
            return answer
        except grpc.RpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    def download(self, request: Message, timeout: float) -> Iterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)
        method = self._channel.unary_stream(rpc.path, **_codec(rpc))
        try:
            for answer in method(request, **options):
                yield _raw(rpc, answer)
        except grpc.RpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class AsyncGrpcTransport(_Sender):
    """Sends requests over one gRPC channel, awaited. The channel belongs to the event loop of the
    first call.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._opened: grpc.aio.Channel | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            options = _options(self._endpoint)
            self._opened = (
                grpc.aio.secure_channel(self._address, _credentials(self._endpoint), options)
                if self._endpoint.secure
                else grpc.aio.insecure_channel(self._address, options)
            )
        return self._opened

    async def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)
        try:
            method = self._channel.unary_unary(rpc.path, **_codec(rpc))
            answer: Message = await method(request, **options)
            return answer
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)

        async def messages() -> AsyncIterator[Message]:
            # A stream has one message at least, so an empty body is the request alone.
            if not size:
                yield request
            async for piece in pieces:
                yield _piece(request, piece)

        try:
            method = self._channel.stream_unary(rpc.path, **_codec(rpc))
            answer: Message = await method(messages(), **options)
            return answer
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    async def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        rpc = rpc_of(request)
        request_id, options = self._attempt(timeout)
        method = self._channel.unary_stream(rpc.path, **_codec(rpc))
        try:
            async for answer in method(request, **options):
                yield _raw(rpc, answer)
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc, request, request_id, timeout) from None

    async def close(self) -> None:
        """Closes the channel."""
        if self._opened is not None:
            await self._opened.close()
