"""Runtimes that are only simulated: each attaches over a real stream with a runtime's credential,
and reports.

They load another model format than the one that is measured, so no work comes to them: what is
measured is the cost of having them. As a program it attaches as many as it is told, says so, and
stays until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import uvloop

from benchmarks.processes import Child
from stellwerk.controlplane.v1 import identity_service_pb2 as identities
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as identity_stubs
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import fleet_service_pb2_grpc as stubs
from stellwerk.router.v1 import router_service_pb2 as router

FORMAT = "torch_export"
GIB = 1024**3
# As often as a real runtime.
REPORT_SECONDS = 2.0
# How a runtime is told where its platform is, and its credential.
VARIABLES = ("STELLWERK_ROUTER", "STELLWERK_CONTROLPLANE", "STELLWERK_SERVICE_KEY_FILE")


class SimulatedFleet:
    """So many runtimes, attached to a platform while the context lasts.

    `environment` is that of a real runtime of the platform.
    """

    def __init__(self, environment: Mapping[str, str], count: int) -> None:
        self._arguments = [*(environment[name] for name in VARIABLES), str(count)]

    def __enter__(self) -> SimulatedFleet:
        """Returns when the router has welcomed all; raises NotReady if it does not."""
        self._directory = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "benchmarks.simulated_fleet", *self._arguments]
        self._child = Child(command, Path(self._directory.name) / "log", speaks=True)
        try:
            self._child.first_line()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stop()
        self._directory.cleanup()


async def _reports(number: int) -> AsyncIterator[messages.AttachRequest]:
    runtime = router.Runtime(
        name=f"runtimes/simulated-{number}",
        instance=uuid.uuid4().hex,
        cpu_cores=8,
        memory_bytes=64 * GIB,
        formats=[FORMAT],
        frameworks={"torch": "2.7.0"},
        labels={"zone": f"z{number % 3}"},
        slots=8,
    )
    yield messages.AttachRequest(advertisement=runtime)
    while True:
        yield messages.AttachRequest(report=messages.Report(in_flight=number % 8))
        await asyncio.sleep(REPORT_SECONDS)


async def _attach(stub: Any, token: str, number: int, welcomed: asyncio.Semaphore) -> None:
    async for response in stub.Attach(
        _reports(number), metadata=(("authorization", f"Bearer {token}"),)
    ):
        if response.HasField("welcome"):
            welcomed.release()
    raise RuntimeError("the router ended the stream")


async def _run(router_address: str, controlplane: str, key: str, count: int) -> None:
    welcomed = asyncio.Semaphore(0)
    async with (
        grpc.aio.insecure_channel(router_address) as fleet,
        grpc.aio.insecure_channel(controlplane) as identity,
    ):
        issuer: Any = identity_stubs.IdentityServiceStub(identity)
        issued = await issuer.IssueToken(identities.IssueTokenRequest(api_key=key))
        stub = stubs.FleetServiceStub(fleet)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(_attach(stub, issued.access_token, number, welcomed))
            for _ in range(count):
                await welcomed.acquire()
            print("attached", flush=True)


if __name__ == "__main__":
    where, issuer, key_file, how_many = sys.argv[1:]
    uvloop.run(_run(where, issuer, Path(key_file).read_text().strip(), int(how_many)))
