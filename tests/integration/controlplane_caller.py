"""Runs the control plane and calls it as one caller after another, as its tests do."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.chassis.lifecycle.process import Process
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.identity.keys import new_service_key
from services.controlplane.main import compose
from services.local.ports import free_port
from stellwerk.controlplane.v1 import audit_service_pb2_grpc as audit_grpc
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as identity_grpc

ROUTER_KEY = new_service_key("router")


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
        answer = await self(
            self.identity.IssueToken,
            pb.IssueTokenRequest(api_key=secret, lifetime_seconds=lifetime),
        )
        return Caller(self.channel, answer.access_token)

    async def make(self, name: str, *roles: str) -> str:
        """A new principal with these roles everywhere; returns the secret of a key of its."""
        bindings = [pb.RoleBinding(role=role, bucket="*") for role in roles]
        principal = pb.Principal(name=f"principals/{name}", roles=bindings)
        await self(self.identity.CreatePrincipal, pb.CreatePrincipalRequest(principal=principal))
        made = await self(
            self.identity.CreateApiKey, pb.CreateApiKeyRequest(parent=f"principals/{name}")
        )
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


@asynccontextmanager
async def running(
    settings: ControlPlaneSettings,
) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    process = compose(settings)
    task = asyncio.create_task(process.run())
    while not process.bound_port:
        assert not task.done(), task.result()
        await asyncio.sleep(0.01)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.bound_port}") as channel:
        try:
            yield process, channel
        finally:
            process.stop()
            await task


def settings_for(mongod: str, directory: Path, **values: Any) -> ControlPlaneSettings:
    (directory / "router.key").write_text(ROUTER_KEY)
    nowhere = f"127.0.0.1:{free_port()}"
    return ControlPlaneSettings(
        **{
            "mongo_url": mongod,
            "mongo_database": f"cp_{uuid.uuid4().hex[:12]}",
            "root_key": "r" * 32,
            "service_keys": directory,
            "admin_key_file": directory / "admin" / "admin.key",
            "router": nowhere,
            "repository": nowhere,
            "key_publish_seconds": 0.0,
            "drain_seconds": 1.0,
            **values,
        }
    )


def code_of(failure: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> str:
    return failure.value.code().name
