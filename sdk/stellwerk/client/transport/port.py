"""The port between the client and the wire. A request message is the whole call; raw bodies are
streamed beside it.

Adapters raise the classes of `stellwerk.client.errors` and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Target:
    """Where the platform is and what is needed to talk to it."""

    url: str
    # An access token, or an API key, which the platform exchanges itself.
    token: str | None
    # Certificates of the authority to trust, in PEM; None for those the machine trusts.
    ca: Path | None = None

    @property
    def secure(self) -> bool:
        return urlsplit(self.url).scheme in ("https", "grpcs")

    @property
    def loopback(self) -> bool:
        """The platform is on this machine, so no proxy stands between."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def user_agent() -> str:
    try:
        return f"stellwerk-python/{metadata.version('stellwerk')}"
    except metadata.PackageNotFoundError:
        return "stellwerk-python"


class SyncTransport(Protocol):
    """Blocks until the answer is there."""

    def call(self, request: Message, timeout: float) -> Message: ...
    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message: ...
    def download(self, request: Message, timeout: float) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same, awaited."""

    async def call(self, request: Message, timeout: float) -> Message: ...
    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message: ...
    def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]: ...
    async def close(self) -> None: ...
