"""Exchanges an API key for a token at the control plane."""

from __future__ import annotations

from typing import Any

from services.api_gateway.credentials import Issue
from stellwerk.controlplane.v1 import identity_service_pb2 as messages
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as stubs

_TIMEOUT = 5.0


def issuer(channel: Any) -> Issue:
    """The exchange, over a channel of the chassis, which raises our errors."""
    stub: Any = stubs.IdentityServiceStub(channel)

    async def issue(key: str) -> tuple[str, float]:
        answer = await stub.IssueToken(messages.IssueTokenRequest(api_key=key), timeout=_TIMEOUT)
        return answer.access_token, float(answer.expires_in)

    return issue
