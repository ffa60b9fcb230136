"""Asks a gRPC server for its health; the exit code is 0 if it serves.

Run as `python -m services.chassis.lifecycle.probe ADDRESS`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.chassis.lifecycle.probe", description=__doc__
    )
    parser.add_argument("address", help="host:port of the gRPC server")
    parser.add_argument(
        "service", nargs="?", default="", help='"" for readiness, "liveness" for liveness'
    )
    parser.add_argument(
        "--tls", nargs=3, type=Path, metavar=("CA", "CERTIFICATE", "KEY"), help="with mutual TLS"
    )
    return parser.parse_args(given)


def _channel(arguments: argparse.Namespace) -> grpc.Channel:
    if not arguments.tls:
        return grpc.insecure_channel(arguments.address)
    ca, certificate, key = (path.read_bytes() for path in arguments.tls)
    return grpc.secure_channel(
        arguments.address, grpc.ssl_channel_credentials(ca, key, certificate)
    )


def main(given: list[str]) -> int:
    """Prints the status, or why there is none; returns the exit code."""
    arguments = _arguments(given)
    with _channel(arguments) as channel:
        request = health_pb2.HealthCheckRequest(service=arguments.service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=3)
        except grpc.RpcError as exc:
            print(f"no answer: {exc.code().name}", file=sys.stderr)
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
