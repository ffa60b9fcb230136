"""The platform as a client sees it: `Client` blocks, `AsyncClient` is awaited, both have the same
nouns.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from stellwerk.client.resources.access import Access
from stellwerk.client.resources.audit import Audit
from stellwerk.client.resources.buckets import Buckets
from stellwerk.client.resources.models import Models
from stellwerk.client.resources.resource import Noun, S
from stellwerk.client.resources.runtime import Runtime
from stellwerk.client.session.plan import Plan, call, operation
from stellwerk.client.session.session import AsyncSession, SyncSession
from stellwerk.controlplane.v1 import controlplane_service_pb2 as controlplane_pb
from stellwerk.router.v1 import router_service_pb2 as router_pb


class Platform(Noun[S]):
    """Everything there is."""

    def __init__(self, session: S) -> None:
        super().__init__(session)
        self.models: Models[S] = Models(session)
        self.buckets: Buckets[S] = Buckets(session)
        self.runtime: Runtime[S] = Runtime(session)
        self.access: Access[S] = Access(session)
        self.audit: Audit[S] = Audit(session)

    @operation
    def status(self) -> Plan[controlplane_pb.GetStatusResponse]:
        """The state of every service, the fleet and the queues, with the reason where something is
        not ready.
        """
        return (
            yield from call(controlplane_pb.GetStatusRequest(), controlplane_pb.GetStatusResponse)
        )

    @operation
    def runtimes(self) -> Plan[list[router_pb.Runtime]]:
        """The runtimes attached now, with what they have and what they serve."""
        return list(
            (
                yield from call(router_pb.ListRuntimesRequest(), router_pb.ListRuntimesResponse)
            ).runtimes
        )


class Client(Platform[SyncSession]):
    """A blocking client. May be used by several threads. Close it, or use it in a `with` block."""

    def close(self) -> None:
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
    """An asynchronous client, for one event loop. Close it, or use it in an `async with` block."""

    async def close(self) -> None:
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
