"""Proves who this process is, and keeps the set of trusted signing keys fresh.

A process exchanges its service key for short tokens. While the control plane is away its last token
stays good until it expires, and the trusted keys stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from services.chassis import background
from services.chassis.access.token_verifier import TokenVerifier
from services.chassis.rpc_status import from_rpc
from stellwerk.controlplane.v1 import identity_service_pb2 as messages
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as stubs
from stellwerk.wire.errors import ServiceError, Unauthenticated, Unavailable

# Seconds between two fetches of trusted keys and revocations.
TRUST_INTERVAL = 5.0
# Seconds after which a failed fetch is tried again, at most.
_LONGEST_RETRY = 2.0
# Seconds that a call waits for the process's first token.
_FIRST_TOKEN_SECONDS = 3.0
# The share of a token's life after which it is renewed.
_RENEW_AT = 2 / 3

# Returns a token and its lifetime in seconds. Raises a ServiceError.
FetchToken = Callable[[], Awaitable[tuple[str, float]]]


class ServiceIdentity:
    """The process's own token: `run` keeps it fresh, `token` returns it.

    `problem` is one sentence on why there is none, "" if there is one.
    """

    def __init__(self, fetch: FetchToken) -> None:
        self._fetch = fetch
        self._token = ""
        self._arrived = asyncio.Event()
        self.problem = "no service token yet"

    async def token(self) -> str:
        """Returns the current token; waits up to 3 seconds for the first. Raises Unavailable."""
        if not self._token:
            try:
                async with asyncio.timeout(_FIRST_TOKEN_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                raise Unavailable(f"this service has no token yet: {self.problem}") from None
        return self._token

    async def run(self) -> None:
        """Renews the token after two thirds of its life, for ever."""
        await background.run_forever(
            self._renew, self._failed, expected=ServiceError, longest_seconds=_LONGEST_RETRY
        )

    async def _renew(self, succeeded: Callable[[], None]) -> None:
        self._token, lifetime = await self._fetch()
        succeeded()
        self.problem = ""
        self._arrived.set()
        await asyncio.sleep(lifetime * _RENEW_AT)

    def _failed(self, error: Exception, repeats: bool) -> None:
        self.problem = str(error)


def from_service_key(channel: grpc.aio.Channel, key: str) -> FetchToken:
    """Returns a function that exchanges the service key for a token at the control plane."""
    stub: Any = stubs.IdentityServiceStub(channel)

    async def fetch() -> tuple[str, float]:
        try:
            answer = await stub.IssueToken(messages.IssueTokenRequest(api_key=key), timeout=5.0)
        except grpc.aio.AioRpcError as exc:
            error = from_rpc(exc, "control plane")
            if isinstance(error, Unauthenticated):
                raise Unauthenticated(
                    "the control plane does not accept this service's key"
                ) from None
            raise error from None
        return answer.access_token, float(answer.expires_in)

    return fetch


class TrustPoller:
    """Fetches trusted keys and revocations every few seconds and gives them to the verifier."""

    def __init__(self, channel: grpc.aio.Channel, verifier: TokenVerifier) -> None:
        self._stub: Any = stubs.IdentityServiceStub(channel)
        self._verifier = verifier

    @property
    def problem(self) -> str:
        """One sentence on why no token can be checked, "" if tokens can be."""
        if self._verifier.ready:
            return ""
        return "the control plane has not been reached yet, so no token can be checked"

    async def run(self) -> None:
        """Fetches for ever."""
        await background.run_forever(
            self._fetch,
            lambda error, repeats: None,
            expected=grpc.aio.AioRpcError,
            longest_seconds=_LONGEST_RETRY,
        )

    async def _fetch(self, succeeded: Callable[[], None]) -> None:
        bundle = await self._stub.GetTrust(messages.GetTrustRequest(), timeout=3.0)
        succeeded()
        self._verifier.trust(bundle)
        await asyncio.sleep(TRUST_INTERVAL)
