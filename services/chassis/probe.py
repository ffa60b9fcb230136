"""Asks a gRPC server for its health: `python -m services.chassis.probe ADDRESS [SERVICE]`; exit code 0 if it serves."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m services.chassis.probe ADDRESS [SERVICE]", file=sys.stderr)
        return 2
    with grpc.insecure_channel(arguments[0]) as channel:
        request = health_pb2.HealthCheckRequest(service=arguments[1] if len(arguments) > 1 else "")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=3)
        except grpc.RpcError as exc:
            print(f"no answer: {exc.code().name}", file=sys.stderr)
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
