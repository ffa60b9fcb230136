"""The clients: `connect` opens one that blocks, `connect_async` one that is awaited; both have the
same resources and operations.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from stellwerk.client import settings
from stellwerk.client.resources.access import Access
from stellwerk.client.resources.audit import Audit
from stellwerk.client.resources.buckets import Buckets
from stellwerk.client.resources.models import Models
from stellwerk.client.resources.resource import Resource, S
from stellwerk.client.resources.runtime import Runtime
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Plan, call
from stellwerk.client.session.session import AsyncSession, ClientState, SyncSession
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.port import AsyncTransport, SyncTransport
from stellwerk.controlplane.v1 import controlplane_service_pb2 as controlplane_pb
from stellwerk.router.v1 import router_service_pb2 as router_pb


class Platform(Resource[S]):
    """All resources of one platform.

    `models` are stored and versioned, `runtime` calls them, `buckets` hold them; `access` has
    principals and keys, `audit` the ledger of changes and refusals. Operations raise the classes
    of `stellwerk.client.errors` and nothing else, bugs apart.
    """

    def __init__(self, session: S) -> None:
        super().__init__(session)
        self.models: Models[S] = Models(session)
        self.buckets: Buckets[S] = Buckets(session)
        self.runtime: Runtime[S] = Runtime(session)
        self.access: Access[S] = Access(session)
        self.audit: Audit[S] = Audit(session)

    @operation
    def status(self) -> Plan[controlplane_pb.GetStatusResponse]:
        """Returns the state of every service, the runtimes and the queues, with the reasons for
        what is not ready.
        """
        return (
            yield from call(controlplane_pb.GetStatusRequest(), controlplane_pb.GetStatusResponse)
        )

    @operation
    def runtimes(self) -> Plan[list[router_pb.Runtime]]:
        """Returns the runtimes attached now, with what they have and what they serve."""
        found = yield from call(router_pb.ListRuntimesRequest(), router_pb.ListRuntimesResponse)
        return list(found.runtimes)


class Client(Platform[SyncSession]):
    """A client that blocks. Several threads may use it at once; a forked child needs its own.

    Close it, or use it in a `with` block.
    """

    def close(self) -> None:
        """Closes the connections. The client cannot be used afterwards."""
        self.session.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(Platform[AsyncSession]):
    """A client whose operations are awaited. It belongs to the event loop of its first call.

    Any number of its operations may run at once, over HTTP on at most 64 connections; a cancelled
    one is cancelled at the platform too. Close it, or use it in an `async with` block.
    """

    async def close(self) -> None:
        """Closes the connections. The client cannot be used afterwards."""
        await self.session.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def connect(
    url: str | None = None,
    token: str | None = None,
    *,
    bucket: str = "default",
    timeout: float = 30,
    ca: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> Client:
    """Returns a client of the platform at `url`, "http(s)://host:port" or "grpc(s)://host:port".

    `token` is an access token or an API key. `bucket` is that of models named without one.
    `timeout` is in seconds for each call, its retries included; a transfer may take a second more
    for each MiB. `ca` is a file with the certificates of the authority to trust, in PEM.

    Without `url`, `token` and `ca`, STELLWERK_URL, STELLWERK_TOKEN or STELLWERK_TOKEN_FILE, and
    STELLWERK_CA are used. Without any URL it is the platform of this machine: the one that
    `stellwerk up` keeps in `data_dir`, in STELLWERK_DATA_DIR or in the user's data folder.

    Sends nothing yet. Raises InvalidInput for an impossible address or file, Unauthenticated for a
    text that cannot be a token, Unavailable if no platform is known.
    """
    endpoint = settings.resolve(url, token, ca, settings.environment(), data_dir)
    return Client(SyncSession(_transport(endpoint), ClientState(timeout, bucket)))


def connect_async(
    url: str | None = None,
    token: str | None = None,
    *,
    bucket: str = "default",
    timeout: float = 30,
    ca: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> AsyncClient:
    """Returns a client whose operations are awaited; takes what `connect` takes.

    Use it as `async with connect_async() as sw: await sw.models.list()`.
    """
    endpoint = settings.resolve(url, token, ca, settings.environment(), data_dir)
    return AsyncClient(AsyncSession(_async_transport(endpoint), ClientState(timeout, bucket)))


def _transport(endpoint: Endpoint) -> SyncTransport:
    # Imported here: a client needs one of the four transports.
    if endpoint.url.startswith("grpc"):
        from stellwerk.client.transport.grpc import GrpcTransport

        return GrpcTransport(endpoint)
    from stellwerk.client.transport.http import HttpTransport

    return HttpTransport(endpoint)


def _async_transport(endpoint: Endpoint) -> AsyncTransport:
    if endpoint.url.startswith("grpc"):
        from stellwerk.client.transport.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(endpoint)
    from stellwerk.client.transport.async_http import AsyncHttpTransport

    return AsyncHttpTransport(endpoint)
