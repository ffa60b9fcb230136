"""The platform's status: everyone is listed, and whoever is not ready says why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from services.controlplane.status.platform_status import NO_RUNTIME, Peers, get_status, summarise
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.status.v1 import status_service_pb2 as status
from stellwerk.wire.errors import Unavailable

READY = [status.ServiceStatus(service=name, ready=True) for name in ("controlplane", "router")]
FLEET = router.ListRuntimesResponse(runtimes=[router.Runtime(name="runtimes/r1")])
QUEUES = router.ListQueuesResponse(queues=[router.Queue(name="q")], broker="pull")


def test_all_ready_is_ready_without_reasons() -> None:
    summary = summarise(READY, FLEET, QUEUES)

    assert summary.ready and not summary.reasons
    assert [service.service for service in summary.services] == ["controlplane", "router"]
    assert (summary.runtimes[0].name, summary.queues[0].name, summary.broker) == (
        "runtimes/r1",
        "q",
        "pull",
    )


def test_a_platform_without_runtimes_is_not_ready_and_says_what_to_do() -> None:
    summary = summarise(READY, router.ListRuntimesResponse(), QUEUES)

    assert not summary.ready and list(summary.reasons) == [NO_RUNTIME]


def test_a_fleet_that_only_drains_is_a_reason() -> None:
    fleet = router.ListRuntimesResponse(
        runtimes=[router.Runtime(name="a", draining=True), router.Runtime(name="b", stale=True)]
    )

    assert "every runtime" in summarise(READY, fleet, QUEUES).reasons[0]
    fleet.runtimes.add(name="c")
    assert summarise(READY, fleet, QUEUES).ready


def test_each_reason_names_its_service() -> None:
    services = [
        *READY,
        status.ServiceStatus(
            service="repository", ready=False, reasons=["database: away", "trust: none"]
        ),
        status.ServiceStatus(service="api_gateway", ready=False),
    ]

    summary = summarise(services, FLEET, QUEUES)

    assert not summary.ready
    assert list(summary.reasons) == [
        "repository: database: away",
        "repository: trust: none",
        "api_gateway: not ready",
    ]


def test_what_the_router_does_not_tell_is_a_reason() -> None:
    summary = summarise(READY, "did not answer within 2 s", "the router does not answer")

    assert list(summary.reasons) == [
        "the fleet is not known: did not answer within 2 s",
        "the queues are not known: the router does not answer",
    ]
    assert not summary.runtimes and not summary.queues and not summary.broker


def _answers(value: object) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        return value

    return ask


async def _away() -> object:
    raise Unavailable("the router does not answer; try again in a moment")


async def _hangs() -> object:
    return await asyncio.Event().wait()


async def test_everyone_is_asked_at_once_and_nobody_is_waited_for_longer_than_patience() -> None:
    peers = Peers(
        describe={
            "controlplane": _answers(READY[0]),
            "router": _away,
            "repository": _hangs,
            "api_gateway": _hangs,
        },  # type: ignore[dict-item]
        runtimes=_hangs,  # type: ignore[arg-type]
        queues=_away,  # type: ignore[arg-type]
    )
    started = time.monotonic()

    summary = await get_status(peers, patience=0.2)

    assert time.monotonic() - started < 1.0
    assert [(service.service, service.ready) for service in summary.services] == [
        ("controlplane", True),
        ("router", False),
        ("repository", False),
        ("api_gateway", False),
    ]
    assert summary.services[1].reasons[0] == "the router does not answer; try again in a moment"
    assert summary.services[2].reasons[0] == "did not answer within 0.2 s"
    assert len(summary.reasons) == 5 and not summary.ready
