"""A stand-in for one service process: it serves gRPC health, and what the supervisor asks of
control plane and router.

It notes its environment in the directory it runs in, and prints one line that is JSON and one that
is not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stellwerk.controlplane.v1 import identity_service_pb2, identity_service_pb2_grpc
from stellwerk.router.v1 import router_service_pb2, router_service_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    def Check(self, request: Any, context: Any) -> Any:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class Identity(identity_service_pb2_grpc.IdentityServiceServicer):
    def IssueToken(self, request: Any, context: Any) -> Any:
        return identity_service_pb2.IssueTokenResponse(
            access_token=f"token for {request.api_key}", expires_in=60
        )


class Router(router_service_pb2_grpc.RouterServiceServicer):
    def ListRuntimes(self, request: Any, context: Any) -> Any:
        found = [router_service_pb2.Runtime(name="runtimes/fake")]
        return router_service_pb2.ListRuntimesResponse(runtimes=found)


def serve(name: str) -> None:
    """Serves until SIGTERM. While a file NAME.crash is there, it exits at once with code 3, or
    with the code that the file holds, and prints the rest of the file.
    """
    told = {key: value for key, value in os.environ.items() if key.startswith("STELLWERK_")}
    # In one step: a test may read it at any moment.
    Path(f"{name}.env.part").write_text(json.dumps(told))
    Path(f"{name}.env.part").replace(f"{name}.env.json")
    crash = Path(f"{name}.crash")
    if crash.exists():
        code, _, last_words = crash.read_text().partition(" ")
        print(last_words, file=sys.stderr, flush=True)
        sys.exit(int(code or 3))
    print(json.dumps({"service": name, "event": "started"}), flush=True)
    print("not JSON", file=sys.stderr, flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = answering(told["STELLWERK_LISTEN"])
    ended.wait()
    with Path("stopped").open("a") as order:
        order.write(f"{name}\n")
    server.stop(0).wait()


def answering(address: str) -> grpc.Server:
    """A started server that answers at the address as any of the five would."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(Identity(), server)
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(Router(), server)
    server.add_insecure_port(address)
    server.start()
    return server
