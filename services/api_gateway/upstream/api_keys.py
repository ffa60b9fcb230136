"""What callers show at the door: tokens pass as they are, API keys are exchanged for tokens at the
control plane.

A key is never kept or logged: the cache knows its digest. Many calls with one key cause one
exchange.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.chassis.single_flight import SingleFlight
from stellwerk.controlplane.v1 import identity_service_pb2 as messages
from stellwerk.controlplane.v1 import identity_service_pb2_grpc as stubs
from stellwerk.wire.api_keys import API_KEY_PREFIX, MAX_LENGTH
from stellwerk.wire.errors import ServiceError, Unauthenticated

# A token is renewed while this part of its life is left, so that it does not lapse on its way.
_RENEW_AT = 0.2
_REFUSED_SECONDS = 3.0
_ISSUE_SECONDS = 5.0

Issue = Callable[[str], Awaitable[tuple[str, float]]]


def issuer(channel: Any) -> Issue:
    """The exchange at the control plane, over a channel of the chassis, which raises our errors."""
    stub: Any = stubs.IdentityServiceStub(channel)

    async def issue(key: str) -> tuple[str, float]:
        answer = await stub.IssueToken(
            messages.IssueTokenRequest(api_key=key), timeout=_ISSUE_SECONDS
        )
        return answer.access_token, float(answer.expires_in)

    return issue


@dataclass(frozen=True, slots=True)
class _Known:
    token: str
    error: ServiceError | None
    until: float


class Credentials:
    """Bearer values in, tokens out."""

    def __init__(
        self, issue: Issue, size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`issue` exchanges a key for a token and the seconds it lives; it raises Unauthenticated
        for a bad key.
        """
        self._issue, self._size, self._clock = issue, size, clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: SingleFlight[bytes, _Known] = SingleFlight()

    async def token(self, bearer: str) -> str:
        """The token that a bearer value stands for. Raises Unauthenticated, or Unavailable without
        control plane.
        """
        if not bearer.startswith(API_KEY_PREFIX):
            return bearer
        if len(bearer) > MAX_LENGTH or not bearer.isascii():
            raise Unauthenticated("this API key is not valid")
        digest = hashlib.sha256(bearer.encode()).digest()
        known = self._known.get(digest)
        if known is None or known.until <= self._clock():
            known = await self._asking.run(digest, lambda: self._ask(digest, bearer))
        if known.error is not None:
            raise known.error.with_traceback(None)
        return known.token

    async def _ask(self, digest: bytes, key: str) -> _Known:
        try:
            token, lifetime = await self._issue(key)
            known = _Known(token, None, self._clock() + lifetime * (1 - _RENEW_AT))
        except Unauthenticated:
            refusal = Unauthenticated("this API key is not valid, was revoked or has lapsed")
            known = _Known("", refusal, self._clock() + _REFUSED_SECONDS)
        except ServiceError as exc:
            return _Known("", exc, 0.0)
        self._known[digest] = known
        self._known.move_to_end(digest)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return known
