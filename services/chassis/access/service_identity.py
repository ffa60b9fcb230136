"""Who this process is: exchanges its service key for short tokens and keeps the set of trusted keys
fresh.

Both go on by themselves while the control plane is away: a token is good until it expires, a key
until it is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from services.chassis.access.token_verifier import TokenVerifier
from services.chassis.rpc_status import from_rpc
from stellwerk.controlplane.v1 import identity_service_pb2 as messages
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as stubs
from stellwerk.wire.errors import ServiceError, Unauthenticated, Unavailable

TRUST_INTERVAL = 5.0
_FIRST_RETRY, _LONGEST_RETRY = 0.1, 2.0


class ServiceIdentity:
    """The process's own token. `run` keeps it fresh; `token` hands it out."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[str, float]]]) -> None:
        self._fetch = fetch
        self._token = ""
        self._arrived = asyncio.Event()
        self.problem = "no service token yet"

    async def token(self) -> str:
        """The current token; waits a moment for the first one. Raises Unavailable."""
        if not self._token:
            try:
                await asyncio.wait_for(self._arrived.wait(), 3.0)
            except TimeoutError:
                raise Unavailable(f"this service has no token yet: {self.problem}") from None
        return self._token

    async def run(self) -> None:
        """Renews the token after two thirds of its life, for ever."""
        delay = _FIRST_RETRY
        while True:
            try:
                self._token, lifetime = await self._fetch()
            except ServiceError as exc:
                self.problem = exc.message
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_RETRY)
                continue
            self.problem, delay = "", _FIRST_RETRY
            self._arrived.set()
            await asyncio.sleep(lifetime * 2 / 3)


def from_service_key(
    channel: grpc.aio.Channel, key: str
) -> Callable[[], Awaitable[tuple[str, float]]]:
    """Fetches tokens from the control plane for a service key."""
    stub: Any = stubs.IdentityServiceStub(channel)

    async def fetch() -> tuple[str, float]:
        try:
            answer = await stub.IssueToken(messages.IssueTokenRequest(api_key=key), timeout=5.0)
        except grpc.aio.AioRpcError as exc:
            error = from_rpc(exc, "control plane")
            if isinstance(error, Unauthenticated):
                error.message = "the control plane does not accept this service's key"
            raise error from None
        return answer.access_token, float(answer.expires_in)

    return fetch


class TrustPoller:
    """Fetches keys and revocations every few seconds and hands them to the verifier."""

    def __init__(self, channel: grpc.aio.Channel, verifier: TokenVerifier) -> None:
        self._stub: Any = stubs.IdentityServiceStub(channel)
        self._verifier = verifier

    @property
    def problem(self) -> str:
        return (
            ""
            if self._verifier.ready
            else "the control plane has not been reached yet, so no token can be checked"
        )

    async def run(self) -> None:
        delay = _FIRST_RETRY
        while True:
            try:
                bundle = await self._stub.GetTrust(messages.GetTrustRequest(), timeout=3.0)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_RETRY)
                continue
            self._verifier.trust(bundle)
            delay = _FIRST_RETRY
            await asyncio.sleep(TRUST_INTERVAL)
