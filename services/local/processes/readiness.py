"""Asks the running platform, over gRPC: is each process serving, are runtimes attached, and a token
please.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stellwerk.controlplane.v1 import identity_service_pb2, identity_service_pb2_grpc
from stellwerk.router.v1 import router_service_pb2, router_service_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_TIMEOUT = 2.0
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and the seconds it lives."""

    text: str
    lifetime: float


async def unhealthy(address: str) -> str:
    """Why the process at the address does not serve; "" if it does."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as exc:
            return (
                "does not answer"
                if exc.code() == grpc.StatusCode.UNAVAILABLE
                else exc.code().name.lower()
            )
    return "" if answer.status == _SERVING else "is not ready"


async def issue_token(address: str, key: str, lifetime: int) -> Token:
    """Exchanges an API key for a token. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub: Any = identity_service_pb2_grpc.IdentityServiceStub(channel)
        request = identity_service_pb2.IssueTokenRequest(api_key=key, lifetime_seconds=lifetime)
        answer = await stub.IssueToken(request, timeout=5.0)
    return Token(answer.access_token, float(answer.expires_in))


async def attached_runtimes(address: str, token: str) -> int:
    """How many runtimes the router at the address can use. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        metadata = [("authorization", f"Bearer {token}")]
        request = router_service_pb2.ListRuntimesRequest()
        answer = await stub.ListRuntimes(request, timeout=_TIMEOUT, metadata=metadata)
    return sum(1 for runtime in answer.runtimes if not runtime.stale)


async def problems(addresses: dict[str, str]) -> list[str]:
    """One sentence for each process that does not serve."""
    found = await asyncio.gather(*(unhealthy(address) for address in addresses.values()))
    return [f"{name} {problem}" for name, problem in zip(addresses, found, strict=True) if problem]
