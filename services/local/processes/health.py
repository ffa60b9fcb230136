"""Asks the running platform over gRPC: whether a process serves, for a token, how many runtimes are
attached.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.errors import StartFailed
from stellwerk.controlplane.v1 import identity_service_pb2, identity_service_pb2_grpc
from stellwerk.router.v1 import router_service_pb2, router_service_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
# Seconds that a call may take. Calls on the loopback take milliseconds; a token is hashed slowly
# on purpose.
_TIMEOUT = 2.0
_TOKEN_TIMEOUT = 5.0
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A company's proxy cannot reach this machine's loopback.
    ("grpc.enable_http_proxy", 0),
]
# The settings that switch mutual TLS on: authority, key, certificate.
_TLS = ("STELLWERK_TLS_CA", "STELLWERK_TLS_KEY", "STELLWERK_TLS_CERTIFICATE")


def _credentials(ca: Path, key: Path, certificate: Path) -> grpc.ChannelCredentials:
    try:
        # gRPC takes any bytes and fails at each connection; ssl says here what is wrong.
        ssl.create_default_context(cafile=ca).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as exc:
        raise StartFailed(
            f"the files of {', '.join(_TLS)} cannot be used ({exc}); give PEM files that belong"
            " together"
        ) from None
    return grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), certificate.read_bytes())


class Health:
    """Opens a channel for each question, since the processes come and go."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Takes the TLS files that `environ` names. Raises StartFailed if they cannot be used."""
        files = [Path(environ[name]) for name in _TLS if environ.get(name)]
        self._credentials = _credentials(*files) if len(files) == len(_TLS) else None

    async def problems(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """Returns why a process does not serve, for each process that does not.

        `addresses` holds the gRPC address of each process by its name.
        """
        found = await asyncio.gather(*(self._problem(address) for address in addresses.values()))
        return {name: found for name, found in zip(addresses, found, strict=True) if found}

    async def issue_token(self, address: str, key: str, lifetime: int) -> str:
        """Exchanges an API key for a token that lives `lifetime` seconds. Raises
        grpc.aio.AioRpcError.
        """
        async with self._channel(address) as channel:
            stub: Any = identity_service_pb2_grpc.IdentityServiceStub(channel)
            request = identity_service_pb2.IssueTokenRequest(api_key=key, lifetime_seconds=lifetime)
            answer = await stub.IssueToken(request, timeout=_TOKEN_TIMEOUT)
        return str(answer.access_token)

    async def attached_runtimes(self, address: str, token: str) -> int:
        """Returns how many runtimes the router at the address can use. Raises
        grpc.aio.AioRpcError.
        """
        async with self._channel(address) as channel:
            stub: Any = router_service_pb2_grpc.RouterServiceStub(channel)
            metadata = [("authorization", f"Bearer {token}")]
            request = router_service_pb2.ListRuntimesRequest()
            answer = await stub.ListRuntimes(request, timeout=_TIMEOUT, metadata=metadata)
        return sum(1 for runtime in answer.runtimes if not runtime.stale)

    async def _problem(self, address: str) -> str:
        async with self._channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
            except grpc.aio.AioRpcError as exc:
                silent = exc.code() == grpc.StatusCode.UNAVAILABLE
                return "does not answer" if silent else exc.code().name.lower()
        return "" if answer.status == _SERVING else "is not ready"

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)
