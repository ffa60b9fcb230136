"""How the others are asked for their status: one channel each. The control plane itself is asked
without one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.chassis.lifecycle.process import Process
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.status.platform_status import Peers
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.router.v1 import router_service_pb2_grpc as router_grpc
from stellwerk.status.v1 import status_service_pb2 as status
from stellwerk.status.v1 import status_service_pb2_grpc as status_grpc


def connect_peers(process: Process, settings: ControlPlaneSettings) -> Peers:
    """Channels to all whose address is known; they connect when they are first used."""
    addresses = {
        "api_gateway": settings.gateway,
        "router": settings.router,
        "repository": settings.repository,
    }
    channels = {
        name: process.channel(name, address) for name, address in addresses.items() if address
    }
    fleet = router_grpc.RouterServiceStub(channels["router"])

    async def own() -> status.ServiceStatus:
        return process.readiness.describe()

    return Peers(
        describe={
            "controlplane": own,
            **{name: _describe(channel) for name, channel in channels.items()},
        },
        runtimes=lambda: fleet.ListRuntimes(router.ListRuntimesRequest()),
        queues=lambda: fleet.ListQueues(router.ListQueuesRequest()),
    )


def _describe(channel: object) -> Callable[[], Awaitable[status.ServiceStatus]]:
    stub = status_grpc.StatusServiceStub(channel)

    async def ask() -> status.ServiceStatus:
        answer: status.DescribeResponse = await stub.Describe(status.DescribeRequest())
        return answer.status

    return ask
