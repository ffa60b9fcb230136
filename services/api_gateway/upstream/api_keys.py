"""Exchanges API keys for tokens at the control plane; a token passes as it is.

A key is never kept or logged: the cache holds its digest. Concurrent calls with one key cause one
exchange.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.chassis.bounded_cache import BoundedCache
from services.chassis.single_flight import SingleFlight
from stellwerk.controlplane.v1 import identity_service_pb2 as messages
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as stubs
from stellwerk.wire.api_keys import API_KEY_PREFIX, MAX_LENGTH
from stellwerk.wire.errors import ServiceError, Unauthenticated

# The part of a token's lifetime left when it is renewed, so that none lapses on its way.
_RENEW_AT = 0.2
# Seconds for which a refusal is kept: a caller that tries again and again with a bad key costs the
# control plane one exchange in 3 s.
_REFUSED_SECONDS = 3.0
# Seconds for one exchange, which takes milliseconds when the control plane is well.
_ISSUE_SECONDS = 5.0

Issue = Callable[[str], Awaitable[tuple[str, float]]]


def issuer(channel: Any) -> Issue:
    """Returns the exchange at the control plane, over a channel that raises ServiceError."""
    stub: Any = stubs.IdentityServiceStub(channel)

    async def issue(key: str) -> tuple[str, float]:
        answer = await stub.IssueToken(
            messages.IssueTokenRequest(api_key=key), timeout=_ISSUE_SECONDS
        )
        return answer.access_token, float(answer.expires_in)

    return issue


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The end of an exchange: a token or an error, and until when it holds."""

    token: str
    error: ServiceError | None
    until: float


class ApiKeyExchange:
    """Turns bearer values into tokens, and keeps the tokens of API keys for a while."""

    def __init__(
        self, issue: Issue, size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keeps the tokens of `size` keys at most.

        `issue` returns a key's token and its lifetime in seconds; it raises Unauthenticated for a
        bad key.
        """
        self._issue = issue
        self._clock = clock
        # By the key's digest; the key whose exchange is longest ago leaves first.
        self._outcomes: BoundedCache[bytes, _Outcome] = BoundedCache(size)
        self._running: SingleFlight[bytes, _Outcome] = SingleFlight()

    def known(self, key: bytes) -> str | None:
        """Returns the token of an API key if it was exchanged before and need not be again."""
        outcome = self._outcomes.get(hashlib.sha256(key).digest())
        if outcome is None or outcome.error is not None or outcome.until <= self._clock():
            return None
        return outcome.token

    async def token(self, bearer: str) -> str:
        """Returns the token that a bearer value stands for.

        Raises Unauthenticated, and Unavailable when the control plane does not answer.
        """
        if not bearer.startswith(API_KEY_PREFIX):
            return bearer
        if len(bearer) > MAX_LENGTH or not bearer.isascii():
            raise Unauthenticated("this API key is not valid")
        digest = hashlib.sha256(bearer.encode()).digest()
        outcome = self._outcomes.get(digest)
        if outcome is None or outcome.until <= self._clock():
            outcome = await self._running.run(digest, lambda: self._exchange(digest, bearer))
        if outcome.error is not None:
            raise outcome.error.with_traceback(None)
        return outcome.token

    async def _exchange(self, digest: bytes, key: str) -> _Outcome:
        try:
            token, lifetime = await self._issue(key)
            outcome = _Outcome(token, None, self._clock() + lifetime * (1 - _RENEW_AT))
        except Unauthenticated:
            refusal = Unauthenticated("this API key is not valid, was revoked or has lapsed")
            outcome = _Outcome("", refusal, self._clock() + _REFUSED_SECONDS)
        except ServiceError as exc:
            return _Outcome("", exc, 0.0)
        # Removed first, so that a renewed key counts as the newest.
        self._outcomes.pop(digest, None)
        self._outcomes.keep(digest, outcome)
        return outcome
