"""Exchanges API keys and service keys for access tokens, and publishes how to verify the tokens.

Signs and answers from memory. Every invalid key is refused with the same text, whatever the reason,
so that a refusal does not tell which keys exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.controlplane.config import DEFAULT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS
from services.controlplane.identity import keys
from services.controlplane.identity.principals import ApiKey, Principal, Revocations
from services.controlplane.identity.sealing import WrongRootKey
from services.controlplane.identity.signing_keys import (
    SigningKey,
    Subject,
    key_that_signs,
    new_signing_key,
    published_keys,
    sign,
)
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput, PrincipalNotFound, Unauthenticated, Unavailable
from stellwerk.wire.permissions import Grant

REFUSAL = (
    "the key is not valid: it may be mistyped, expired or revoked; ask an administrator for a"
    " new one"
)
_WRONG_ROOT_KEY = (
    "the signing keys cannot be opened: STELLWERK_ROOT_KEY is not the one they were sealed with"
)


class PrincipalReader(Protocol):
    """The part of the identity store that tokens need. Methods raise Unavailable when the database
    does not answer.
    """

    async def find_key(self, key_id: str) -> ApiKey | None: ...
    async def get(self, principal_id: str) -> Principal: ...
    async def revocations(self, now: float) -> Revocations: ...


class SigningKeys(Protocol):
    """The part of the store of signing keys that tokens need; see SigningKeyStore."""

    async def signing_keys(self) -> list[SigningKey]: ...
    async def add_signing_key(self, key: SigningKey) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """The issuer's name, the default lifetime of tokens in seconds, and the seconds for which a new
    signing key is published before it signs.
    """

    issuer: str = "stellwerk"
    lifetime_seconds: int = DEFAULT_LIFETIME_SECONDS
    publish_seconds: float = 12.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the seconds until it expires."""

    text: str
    expires_in: int


class TokenIssuer:
    """Issues tokens from signing keys in memory, and publishes the trust bundle: public keys and
    revocations. `refresh` reads both anew from the stores and calls `on_trust` with the bundle.
    """

    def __init__(
        self,
        principals: PrincipalReader,
        signing_keys: SigningKeys,
        service_keys: keys.ServiceKeys,
        policy: TokenPolicy,
        clock: Callable[[], float],
        on_trust: Callable[[pb.GetTrustResponse], None],
    ) -> None:
        self._principals = principals
        self._signing_keys = signing_keys
        self._service_keys = service_keys
        self._policy = policy
        self._clock = clock
        self._on_trust = on_trust
        self._keys: tuple[SigningKey, ...] = ()
        self._trust: pb.GetTrustResponse | None = None
        self._refreshing = asyncio.Lock()
        self.problem = "the signing keys have not been read yet"

    async def refresh(self) -> None:
        """Reads keys and revocations anew, and creates the first signing key if there is none.
        Raises Unavailable when a database or the root key prevents it.
        """
        async with self._refreshing:
            try:
                found = await self._signing_keys.signing_keys()
            except WrongRootKey:
                self.problem = _WRONG_ROOT_KEY
                raise Unavailable(_WRONG_ROOT_KEY) from None
            if not found:
                await self._signing_keys.add_signing_key(new_signing_key(self._clock()))
                found = await self._signing_keys.signing_keys()
            revoked = await self._principals.revocations(self._clock())
            self._keys = published_keys(found, self._clock())
            self._trust = pb.GetTrustResponse(
                issuer=self._policy.issuer,
                keys=[key.jwk() for key in sorted(self._keys, key=lambda key: key.kid)],
                revoked_key_ids=revoked.key_ids,
                revoked_principals=revoked.principals,
                tokens_valid_from=revoked.valid_from,
            )
            self.problem = ""
            self._on_trust(self._trust)

    def trust(self) -> pb.GetTrustResponse:
        """Returns public keys and revocations. Raises Unavailable before the first refresh."""
        if self._trust is None:
            raise Unavailable(f"the control plane is starting: {self.problem}")
        return self._trust

    async def rotate(self) -> str:
        """Publishes a new signing key, which signs after `publish_seconds`; returns its id. Tokens
        of older keys stay valid.
        """
        key = new_signing_key(self._clock() + self._policy.publish_seconds)
        await self._signing_keys.add_signing_key(key)
        await self.refresh()
        return key.kid

    async def exchange(self, text: str, lifetime_seconds: int = 0) -> Token:
        """Issues a token for an API key or a service key; 0 seconds stand for the default lifetime,
        and the token expires with the key at the latest.

        Raises Unauthenticated for an invalid key, InvalidInput for a lifetime out of bounds.
        """
        if not 0 <= lifetime_seconds <= MAX_LIFETIME_SECONDS:
            raise InvalidInput(
                f"lifetime_seconds must be 1 to {MAX_LIFETIME_SECONDS}, or 0 for the default",
                field="lifetime_seconds",
                limit=MAX_LIFETIME_SECONDS,
            )
        lifetime = lifetime_seconds or self._policy.lifetime_seconds
        service = keys.parse_service_key(text)
        if service is not None:
            return await self._for_service(service, lifetime)
        return await self._for_principal(keys.parse_api_key(text), lifetime)

    async def own(self) -> tuple[str, float]:
        """Returns the control plane's own token and its lifetime in seconds. Raises Unavailable
        before the first refresh.
        """
        token = self._sign(
            Subject("services/controlplane", (Grant("service.controlplane"),)),
            DEFAULT_LIFETIME_SECONDS,
        )
        return token.text, float(token.expires_in)

    async def _for_service(self, parsed: keys.ParsedKey, lifetime: int) -> Token:
        if not await asyncio.to_thread(self._service_keys.holds, parsed):
            raise Unauthenticated(REFUSAL)
        subject = Subject(f"services/{parsed.id}", (Grant(f"service.{parsed.id}"),))
        return self._sign(subject, lifetime)

    async def _for_principal(self, parsed: keys.ParsedKey | None, lifetime: int) -> Token:
        key = await self._principals.find_key(parsed.id) if parsed else None
        if parsed is None or key is None or not keys.equal_hashes(key.hash, parsed.hash):
            raise Unauthenticated(REFUSAL)
        now = self._clock()
        try:
            principal = await self._principals.get(key.owner)
        except PrincipalNotFound:
            raise Unauthenticated(REFUSAL) from None
        if principal.uid != key.owner_uid or principal.disabled or not key.usable(now):
            raise Unauthenticated(REFUSAL)
        if key.expires_at is not None:
            lifetime = min(lifetime, int(key.expires_at - now))
        if lifetime < 1:
            raise Unauthenticated(REFUSAL)
        return self._sign(
            Subject(principal.name, principal.roles, key.id), lifetime, principal.tokens_valid_from
        )

    def _sign(self, subject: Subject, lifetime: int, valid_from: int = 0) -> Token:
        # After a change of roles this is up to a second ahead; verifiers allow 30 s.
        now = max(int(self._clock()), valid_from)
        key = key_that_signs(self._keys, self._clock())
        if key is None:
            raise Unavailable(f"the control plane is starting: {self.problem}")
        return Token(sign(key, self._policy.issuer, subject, now, now + lifetime), lifetime)
