"""Verifies bearer tokens against the issuer's public keys, once per token.

Every refused token gets the same text. Only ES256 is accepted; the key comes from the trusted set
by `kid` and from nowhere a token could name (RFC 8725).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt

from services.chassis.bounded_cache import BoundedCache
from services.chassis.context import Principal
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.wire.api_keys import API_KEY_PREFIX
from stellwerk.wire.errors import Unauthenticated, Unavailable
from stellwerk.wire.permissions import Grant

ALGORITHM = "ES256"
AUDIENCE = "stellwerk"
# Seconds by which the clocks of issuer and verifier may differ.
LEEWAY_SECONDS = 30
# Bytes; a longer token is refused before it is decoded.
MAX_TOKEN_BYTES = 8192
# Seconds. No issuer gives a token a longer life, so one that claims it is refused.
MAX_LIFETIME_SECONDS = 24 * 3600
_REQUIRED = ["exp", "iat", "nbf", "iss", "aud", "sub"]
_HEADER_FIELDS = {"alg", "kid", "typ"}
# Verified tokens that are kept: at 1 KiB a token, 10 MiB.
_CACHE_SIZE = 10_000
REFUSAL = "a valid bearer token is needed: send it as 'Authorization: Bearer …'"
SEVERAL = "the call carries several 'Authorization' values; send exactly one"

# Turns an API key into a token.
Exchange = Callable[[str], Awaitable[str]]


def bearer(authorization: str) -> str:
    """Returns the token of an Authorization value. Raises Unauthenticated if it carries none.

    Several values joined by commas, as RFC 9110 joins repeated fields, are refused: no value counts
    more than another, and no token holds a comma.
    """
    if "," in authorization:
        raise Unauthenticated(SEVERAL)
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(REFUSAL)
    return token


class TokenVerifier:
    """Turns tokens into principals; keeps those it has verified."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._issuer = ""
        self._keys: dict[str, Any] = {}
        self._revoked_keys: frozenset[str] = frozenset()
        self._revoked_principals: frozenset[str] = frozenset()
        self._valid_from: dict[str, int] = {}
        self._seen: BoundedCache[str, Principal] = BoundedCache(_CACHE_SIZE)
        self._trusted = b""

    @property
    def ready(self) -> bool:
        """True once a key is trusted."""
        return bool(self._keys)

    def trust(self, bundle: identity.GetTrustResponse) -> None:
        """Takes over keys and revocations; tokens verified before are verified again."""
        data = bundle.SerializeToString(deterministic=True)
        if data == self._trusted:
            return
        self._trusted = data
        self._issuer = bundle.issuer
        self._keys = {key.kid: jwt.PyJWK(_jwk(key)).key for key in bundle.keys}
        self._revoked_keys = frozenset(bundle.revoked_key_ids)
        self._revoked_principals = frozenset(bundle.revoked_principals)
        self._valid_from = dict(bundle.tokens_valid_from)
        self._seen.clear()

    def verify(self, token: str) -> Principal:
        """Returns the token's principal.

        Raises Unauthenticated, or Unavailable before any key is trusted.
        """
        if not self._keys:
            raise Unavailable(
                "tokens cannot be checked yet: the control plane has not been reached"
            )
        principal = self._seen.get(token)
        if principal is None:
            principal = self._decode(token)
            self._seen.keep(token, principal)
        if principal.expires_at + LEEWAY_SECONDS <= self._clock():
            raise Unauthenticated(REFUSAL)
        return principal

    def _decode(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(REFUSAL)
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.get(header.get("kid", ""))
            if key is None or header.get("alg") != ALGORITHM or not set(header) <= _HEADER_FIELDS:
                raise Unauthenticated(REFUSAL)
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
            if float(claims["exp"]) - float(claims["iat"]) > MAX_LIFETIME_SECONDS:
                raise Unauthenticated(REFUSAL)
            principal = Principal(
                name=str(claims["sub"]),
                grants=tuple(
                    Grant(str(role), str(bucket)) for role, bucket in claims.get("grants", [])
                ),
                key_id=str(claims.get("key", "")),
                expires_at=float(claims["exp"]),
            )
        except (
            jwt.PyJWTError,
            ValueError,
            TypeError,
            RecursionError,
            OverflowError,
            AttributeError,
        ):
            raise Unauthenticated(REFUSAL) from None
        if principal.key_id in self._revoked_keys or principal.name in self._revoked_principals:
            raise Unauthenticated(REFUSAL)
        if int(claims["iat"]) < self._valid_from.get(principal.name, 0):
            raise Unauthenticated(REFUSAL)
        return principal


class Authenticator:
    """Turns the Authorization value of a call into a token and its principal."""

    def __init__(self, verifier: TokenVerifier, exchange: Exchange | None = None) -> None:
        self._verifier = verifier
        self._exchange = exchange

    async def authenticate(self, authorization: str) -> tuple[str, Principal]:
        """Returns the token and its principal. Raises Unauthenticated or Unavailable."""
        token = bearer(authorization)
        # A token passes as it is: only an API key is worth another await.
        if self._exchange is not None and token.startswith(API_KEY_PREFIX):
            token = await self._exchange(token)
        return token, self._verifier.verify(token)


def _jwk(key: identity.Jwk) -> dict[str, str]:
    return {
        "kty": key.kty,
        "kid": key.kid,
        "use": key.use,
        "alg": key.alg,
        "crv": key.crv,
        "x": key.x,
        "y": key.y,
    }
