"""The Python SDK of Stellwerk: store a model with one line, predict with another.

from stellwerk.client import connect
sw = connect("http://127.0.0.1:8080", token=...)
sw.models.put(clf, "iris")
sw.runtime.model("iris").predict(X)
"""

from __future__ import annotations

from pathlib import Path

from stellwerk.client import errors, settings
from stellwerk.client.platform import AsyncClient, Client
from stellwerk.client.session.session import AsyncSession, State, SyncSession
from stellwerk.client.transport.port import AsyncTransport, SyncTransport, Target

__all__ = ["AsyncClient", "Client", "connect", "connect_async", "errors"]


def connect(
    url: str | None = None,
    token: str | None = None,
    *,
    bucket: str = "default",
    timeout: float = 30,
    ca: str | Path | None = None,
) -> Client:
    """A client of the platform at `url`, "http(s)://host:port" or "grpc(s)://host:port".

    `token` is an access token or an API key. What is not given comes from STELLWERK_URL,
    STELLWERK_TOKEN, STELLWERK_TOKEN_FILE and STELLWERK_CA, or else from a platform that `stellwerk
    up` runs on this machine. `timeout` is in seconds for each call, its retries included. Nothing
    is sent yet.
    """
    target = settings.resolve(url, token, ca, settings.environment())
    state = State(timeout, bucket)
    return Client(SyncSession(_transport(target), state))


def connect_async(
    url: str | None = None,
    token: str | None = None,
    *,
    bucket: str = "default",
    timeout: float = 30,
    ca: str | Path | None = None,
) -> AsyncClient:
    """The same, awaited: `async with connect_async() as sw: await sw.models.list()`."""
    target = settings.resolve(url, token, ca, settings.environment())
    state = State(timeout, bucket)
    return AsyncClient(AsyncSession(_async_transport(target), state))


def _transport(target: Target) -> SyncTransport:
    # Imported here: one client needs one of the two.
    if target.url.startswith("grpc"):
        from stellwerk.client.transport.grpc import GrpcTransport

        return GrpcTransport(target)
    from stellwerk.client.transport.http import HttpTransport

    return HttpTransport(target)


def _async_transport(target: Target) -> AsyncTransport:
    if target.url.startswith("grpc"):
        from stellwerk.client.transport.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(target)
    from stellwerk.client.transport.http import AsyncHttpTransport

    return AsyncHttpTransport(target)
