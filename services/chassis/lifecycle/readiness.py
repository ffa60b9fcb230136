"""The readiness of a process: one list of dependencies behind gRPC health and StatusService.

In the health service "liveness" is SERVING while the process runs; "" follows the dependencies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from google.protobuf import timestamp_pb2
from grpc_health.v1 import health, health_pb2

from stellwerk.status.v1 import status_service_pb2 as status

LIVENESS = "liveness"
# Seconds between two looks at the dependencies.
_INTERVAL = 0.25
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Readiness:
    """The dependencies of a process, and the health that follows from them."""

    def __init__(
        self, service: str, instance: str, version: str, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self.health = health.aio.HealthServicer()
        self._dependencies: dict[str, Callable[[], str]] = {}
        self._log = log
        self._phase = "the process is starting"
        self._shown: bool | None = None
        self._start_time = timestamp_pb2.Timestamp()
        self._start_time.GetCurrentTime()
        self._identity = {"service": service, "instance": instance, "version": version}

    def depends_on(self, name: str, problem: Callable[[], str]) -> None:
        """Adds a dependency.

        `problem` returns one sentence on why it cannot be used, "" if it can.
        """
        self._dependencies[name] = problem

    def reasons(self) -> list[str]:
        """Returns the sentences on why the process is not ready, none if it is."""
        problems = {name: problem() for name, problem in self._dependencies.items()}
        reasons = [f"{name}: {problem}" for name, problem in problems.items() if problem]
        return [self._phase, *reasons] if self._phase else reasons

    @property
    def is_ready(self) -> bool:
        """True if the process was ready when the dependencies were last looked at.

        Any thread may read it; `reasons` asks the dependencies, which live in the event loop.
        """
        return self._shown is True

    async def enter(self, phase: str) -> None:
        """Changes the phase: a sentence while starting or stopping, "" while running.

        Health follows at once.
        """
        self._phase = phase
        await self.health.set(LIVENESS, _SERVING)
        await self._show()

    async def _show(self) -> None:
        reasons = self.reasons()
        if self._shown is not (not reasons):
            self._shown = not reasons
            self._log.info("readiness", ready=self._shown, reasons=reasons)
            await self.health.set("", _SERVING if self._shown else _NOT_SERVING)

    async def run(self) -> None:
        """Has health follow the dependencies, for ever."""
        while True:
            await self._show()
            await asyncio.sleep(_INTERVAL)

    def describe(self) -> status.ServiceStatus:
        """Returns the status as the API shows it."""
        reasons = self.reasons()
        return status.ServiceStatus(
            **self._identity,
            ready=not reasons,
            reasons=reasons,
            start_time=self._start_time,
            dependencies=[
                status.DependencyStatus(name=name, ready=not problem(), reason=problem())
                for name, problem in self._dependencies.items()
            ],
        )


class StatusServicer:
    """Serves StatusService in every process."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def Describe(self, request: status.DescribeRequest, _: Any) -> status.DescribeResponse:
        """Returns the status of this process."""
        return status.DescribeResponse(status=self._readiness.describe())
