"""The port between sessions and the network. A request message is the whole call; raw bodies are
streamed beside it.

Adapters raise the classes of `stellwerk.client.errors` and nothing else. Each attempt has a request
id of its own, which the platform logs and which the error carries.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from typing import Protocol

from google.protobuf.message import Message

from stellwerk.client.errors import ServiceError, Unauthenticated, unauthenticated
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.rpc import rpc_of


def user_agent() -> str:
    """Returns the name and version of the SDK."""
    try:
        return f"stellwerk-python/{metadata.version('stellwerk')}"
    except metadata.PackageNotFoundError:
        return "stellwerk-python"


def new_request_id() -> str:
    """Returns a fresh request id, 32 hex digits."""
    return os.urandom(16).hex()


def refusal(error: ServiceError, request: Message, endpoint: Endpoint) -> ServiceError:
    """Returns the error that a caller gets for the platform's answer to `request`.

    The refusal of a token says where the client found the token, or how to give one.
    """
    # A public RPC needs no token: what it refuses is the key in its request.
    if isinstance(error, Unauthenticated) and not rpc_of(request).public:
        return unauthenticated(error, endpoint.token_source, endpoint.loopback)
    return error


class SyncTransport(Protocol):
    """Sends requests and blocks until the answer is there. Several threads may use it at once."""

    def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response. `timeout` is in seconds."""
        ...

    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        ...

    def download(self, request: Message, timeout: float) -> Iterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        ...

    def close(self) -> None:
        """Closes the connections. Calls that are under way fail."""
        ...


class AsyncTransport(Protocol):
    """Does the same, awaited. Belongs to the event loop of its first call."""

    async def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response. `timeout` is in seconds."""
        ...

    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        ...

    def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        ...

    async def close(self) -> None:
        """Closes the connections. Calls that are under way fail."""
        ...
