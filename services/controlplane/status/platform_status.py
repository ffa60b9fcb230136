"""The state of the whole platform: asks everyone at once, for two seconds at most, and says what is
not ready and why.

Who does not answer is listed all the same. `summarise` is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stellwerk.controlplane.v1 import controlplane_service_pb2 as pb
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.status.v1 import status_service_pb2 as status
from stellwerk.wire.errors import ServiceError

PATIENCE_SECONDS = 2.0
NO_RUNTIME = "no runtime is attached; start one"
NO_WORKING_RUNTIME = (
    "every runtime is draining or has not been heard of for a while; start another one"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Peers:
    """How to ask: each service for its status, by name, and the router for its fleet. Asking raises
    a ServiceError.
    """

    describe: dict[str, Callable[[], Awaitable[status.ServiceStatus]]]
    runtimes: Callable[[], Awaitable[router.ListRuntimesResponse]]
    queues: Callable[[], Awaitable[router.ListQueuesResponse]]


async def get_status(peers: Peers, patience: float = PATIENCE_SECONDS) -> pb.GetStatusResponse:
    """The platform's status. Never raises because of a peer, never takes longer than `patience`."""
    services, runtimes, queues = await asyncio.gather(
        asyncio.gather(*(_described(name, ask, patience) for name, ask in peers.describe.items())),
        _asked(peers.runtimes, patience),
        _asked(peers.queues, patience),
    )
    return summarise(services, runtimes, queues)


def summarise(
    services: Sequence[status.ServiceStatus],
    runtimes: router.ListRuntimesResponse | str,
    queues: router.ListQueuesResponse | str,
) -> pb.GetStatusResponse:
    """The whole from its parts; a sentence stands for a part that could not be had."""
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


async def _described(
    name: str, ask: Callable[[], Awaitable[status.ServiceStatus]], patience: float
) -> status.ServiceStatus:
    answer = await _asked(ask, patience)
    if isinstance(answer, str):
        return status.ServiceStatus(service=name, ready=False, reasons=[answer])
    return answer


async def _asked(ask: Callable[[], Awaitable[T]], patience: float) -> T | str:
    """The answer, or a sentence why there is none."""
    try:
        async with asyncio.timeout(patience):
            return await ask()
    except TimeoutError:
        return f"did not answer within {patience:g} s"
    except ServiceError as exc:
        return exc.message
