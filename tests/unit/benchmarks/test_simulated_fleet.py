"""Simulated runtimes attach as real ones do: with a token for a runtime's key, an advertisement,
and reports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent import futures
from pathlib import Path

import grpc
import psutil

from benchmarks.simulated_fleet import SimulatedFleet
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as identity_grpc
from stellwerk.router.v1 import fleet_service_pb2 as fleet
from stellwerk.router.v1 import fleet_service_pb2_grpc as fleet_grpc


class _Platform(identity_grpc.IdentityServiceServicer, fleet_grpc.FleetServiceServicer):
    """Control plane and router in one: notes who attaches with what."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.instances: set[str] = set()
        self.tokens: set[str] = set()

    def IssueToken(
        self, request: identity.IssueTokenRequest, context: grpc.ServicerContext
    ) -> object:
        return identity.IssueTokenResponse(
            access_token=f"token for {request.api_key}", expires_in=60
        )

    def Attach(
        self, requests: AsyncIterator[fleet.AttachRequest], context: grpc.ServicerContext
    ) -> object:
        stream = iter(requests)  # type: ignore[call-overload]
        first = next(stream)
        self.tokens.add(dict(context.invocation_metadata())["authorization"])
        self.names.add(first.advertisement.name)
        self.instances.add(first.advertisement.instance)
        assert next(stream).HasField("report")
        yield fleet.AttachResponse(welcome=fleet.Welcome(router_instance="r"))
        for _ in stream:
            pass


def test_all_attach_with_a_runtimes_credential_and_leave_in_the_end(tmp_path: Path) -> None:
    key = tmp_path / "runtime.key"
    key.write_text("sws_runtime_x\n")
    platform = _Platform()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    identity_grpc.add_IdentityServiceServicer_to_server(platform, server)
    fleet_grpc.add_FleetServiceServicer_to_server(platform, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    environment = {
        "STELLWERK_ROUTER": address,
        "STELLWERK_CONTROLPLANE": address,
        "STELLWERK_SERVICE_KEY_FILE": str(key),
    }
    try:
        before = {child.pid for child in psutil.Process().children()}
        with SimulatedFleet(environment, 3):
            assert platform.names == {f"runtimes/simulated-{number}" for number in range(3)}
            assert len(platform.instances) == 3
            assert platform.tokens == {"Bearer token for sws_runtime_x"}
            assert {child.pid for child in psutil.Process().children()} > before
        assert {child.pid for child in psutil.Process().children()} <= before
    finally:
        server.stop(grace=None)
