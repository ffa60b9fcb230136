"""Calls the control plane as one caller after another, as the tests of it do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from stellwerk.controlplane.v1 import audit_service_pb2_grpc as audit_grpc
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as identity_grpc


@dataclass
class Caller:
    """Identity and audit service, called with one token."""

    channel: grpc.aio.Channel
    token: str = ""

    async def __call__(self, method: Callable[..., Any], request: Any) -> Any:
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        return await method(request, metadata=metadata, timeout=10)

    @property
    def identity(self) -> Any:
        return identity_grpc.IdentityServiceStub(self.channel)

    @property
    def audit(self) -> Any:
        return audit_grpc.AuditServiceStub(self.channel)

    async def as_key(self, secret: str, lifetime: int = 0) -> Caller:
        """Another caller, with the token of this key."""
        answer = await self(self.identity.IssueToken, pb.IssueTokenRequest(api_key=secret, lifetime_seconds=lifetime))
        return Caller(self.channel, answer.access_token)

    async def make(self, name: str, *roles: str) -> str:
        """A new principal with these roles everywhere; returns the secret of a key of its."""
        bindings = [pb.RoleBinding(role=role, bucket="*") for role in roles]
        principal = pb.Principal(name=f"principals/{name}", roles=bindings)
        await self(self.identity.CreatePrincipal, pb.CreatePrincipalRequest(principal=principal))
        made = await self(self.identity.CreateApiKey, pb.CreateApiKeyRequest(parent=f"principals/{name}"))
        return str(made.secret)


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        assert time.monotonic() < end, "this did not come to pass in time"
        await asyncio.sleep(0.05)
