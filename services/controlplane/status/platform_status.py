"""Sums up the status of the platform: asks every service at once, and says what is not ready and
why. A service that does not answer in time is listed as not ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.chassis.lifecycle.process import Process
from services.controlplane.config import ControlPlaneSettings
from stellwerk.controlplane.v1 import controlplane_service_pb2 as pb
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.router.v1 import router_service_pb2_grpc as router_grpc
from stellwerk.status.v1 import status_service_pb2 as status
from stellwerk.status.v1 import status_service_pb2_grpc as status_grpc
from stellwerk.wire.errors import ServiceError

# Seconds that a peer has for its answer; slower ones are reported as not answering.
PATIENCE_SECONDS = 2.0
NO_RUNTIME = "no runtime is attached; start one"
NO_WORKING_RUNTIME = (
    "every runtime is draining or has not been heard of for a while; start another one"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Peers:
    """Calls that ask for a status: `describe` each service by name, `runtimes` and `queues` the
    router. Each raises a ServiceError.
    """

    describe: dict[str, Callable[[], Awaitable[status.ServiceStatus]]]
    runtimes: Callable[[], Awaitable[router.ListRuntimesResponse]]
    queues: Callable[[], Awaitable[router.ListQueuesResponse]]


def connect_peers(process: Process, settings: ControlPlaneSettings) -> Peers:
    """Returns the calls to every service whose address is set; channels connect at first use.

    The control plane's own status is read without a call.
    """
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


async def get_status(peers: Peers, patience: float = PATIENCE_SECONDS) -> pb.GetStatusResponse:
    """Returns the platform's status within `patience` seconds, whatever the peers do."""
    services, runtimes, queues = await asyncio.gather(
        asyncio.gather(
            *(_describe_within(name, ask, patience) for name, ask in peers.describe.items())
        ),
        _ask_within(peers.runtimes, patience),
        _ask_within(peers.queues, patience),
    )
    return summarise(services, runtimes, queues)


def summarise(
    services: Sequence[status.ServiceStatus],
    runtimes: router.ListRuntimesResponse | str,
    queues: router.ListQueuesResponse | str,
) -> pb.GetStatusResponse:
    """Returns the platform's status from its parts; a text in place of a part says why it is
    missing.
    """
    summary = pb.GetStatusResponse(services=services)
    for service in services:
        if not service.ready:
            summary.reasons.extend(
                f"{service.service}: {reason}" for reason in service.reasons or ["not ready"]
            )
    if isinstance(runtimes, str):
        summary.reasons.append(f"the fleet is not known: {runtimes}")
    else:
        summary.runtimes.extend(runtimes.runtimes)
        if not runtimes.runtimes:
            summary.reasons.append(NO_RUNTIME)
        elif all(runtime.stale or runtime.draining for runtime in runtimes.runtimes):
            summary.reasons.append(NO_WORKING_RUNTIME)
    if isinstance(queues, str):
        summary.reasons.append(f"the queues are not known: {queues}")
    else:
        summary.queues.extend(queues.queues)
        summary.broker = queues.broker
    summary.ready = not summary.reasons
    return summary


async def _describe_within(
    name: str, ask: Callable[[], Awaitable[status.ServiceStatus]], patience: float
) -> status.ServiceStatus:
    answer = await _ask_within(ask, patience)
    if isinstance(answer, str):
        return status.ServiceStatus(service=name, ready=False, reasons=[answer])
    return answer


async def _ask_within(ask: Callable[[], Awaitable[T]], patience: float) -> T | str:
    """Returns the answer, or a text that says why there is none."""
    try:
        async with asyncio.timeout(patience):
            return await ask()
    except TimeoutError:
        return f"did not answer within {patience:g} s"
    except ServiceError as exc:
        return exc.message
