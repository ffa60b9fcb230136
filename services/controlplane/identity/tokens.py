"""Tokens in exchange for keys, and what all others need to verify them. Signs and answers from
memory.

Every key that cannot be exchanged, for whatever reason, is refused with the same text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.controlplane.identity import keys
from services.controlplane.identity.issuer import (
    DEFAULT_LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    SigningKey,
    Subject,
    alive,
    current,
    new_signing_key,
    sign,
)
from services.controlplane.identity.principals import ApiKey, Principal
from services.controlplane.identity.sealing import WrongRootKey
from services.controlplane.identity.store import Revocations
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


class Credentials(Protocol):
    """What tokens are made of, as the store keeps it. Methods raise Unavailable when it cannot be
    reached.
    """

    async def find_key(self, key_id: str) -> ApiKey | None: ...
    async def get(self, principal_id: str) -> Principal: ...
    async def revocations(self, now: float) -> Revocations: ...
    async def signing_keys(self) -> list[SigningKey]: ...
    async def add_signing_key(self, key: SigningKey) -> None: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How tokens are issued. A new signing key is shown to verifiers `publish_seconds` before it
    signs.
    """

    issuer: str = "stellwerk"
    lifetime_seconds: int = DEFAULT_LIFETIME_SECONDS
    publish_seconds: float = 12.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the seconds it lives."""

    text: str
    expires_in: int


class Tokens:
    """The issuer with its keys in memory; `refresh` keeps them and the revocations in step with the
    store.
    """

    def __init__(
        self,
        store: Credentials,
        service_keys: keys.ServiceKeys,
        policy: Policy,
        clock: Callable[[], float],
        on_trust: Callable[[pb.GetTrustResponse], None],
    ) -> None:
        self._store, self._service_keys = store, service_keys
        self._policy, self._clock, self._on_trust = policy, clock, on_trust
        self._keys: tuple[SigningKey, ...] = ()
        self._trust: pb.GetTrustResponse | None = None
        self._refreshing = asyncio.Lock()
        self.problem = "the signing keys have not been read yet"

    async def refresh(self) -> None:
        """Reads keys and revocations anew, and makes the first signing key if there is none."""
        async with self._refreshing:
            try:
                found = await self._store.signing_keys()
            except WrongRootKey:
                self.problem = _WRONG_ROOT_KEY
                raise Unavailable(_WRONG_ROOT_KEY) from None
            if not found:
                await self._store.add_signing_key(new_signing_key(self._clock()))
                found = await self._store.signing_keys()
            revoked = await self._store.revocations(self._clock())
            self._keys = alive(found, self._clock())
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
        """Keys and revocations. Raises Unavailable before the first refresh."""
        if self._trust is None:
            raise Unavailable(f"the control plane is starting: {self.problem}")
        return self._trust

    async def rotate(self) -> str:
        """Publishes a new signing key, which signs in a moment; returns its id. Old tokens stay
        good.
        """
        key = new_signing_key(self._clock() + self._policy.publish_seconds)
        await self._store.add_signing_key(key)
        await self.refresh()
        return key.kid

    async def exchange(self, text: str, lifetime_seconds: int = 0) -> Token:
        """A token for an API key or a service's key; it never outlives the key.

        Raises Unauthenticated for a key that is not valid, InvalidInput for a lifetime out of
        bounds.
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
        """The control plane's own token and its lifetime, in exchange for nothing. Raises
        Unavailable at the start.
        """
        token = self._sign(
            Subject("services/controlplane", (Grant("service.controlplane"),)),
            DEFAULT_LIFETIME_SECONDS,
        )
        return token.text, float(token.expires_in)

    async def _for_service(self, presented: keys.Presented, lifetime: int) -> Token:
        if not await asyncio.to_thread(self._service_keys.holds, presented):
            raise Unauthenticated(REFUSAL)
        subject = Subject(f"services/{presented.id}", (Grant(f"service.{presented.id}"),))
        return self._sign(subject, lifetime)

    async def _for_principal(self, presented: keys.Presented | None, lifetime: int) -> Token:
        key = await self._store.find_key(presented.id) if presented else None
        if presented is None or key is None or not keys.same(key.hash, presented.hash):
            raise Unauthenticated(REFUSAL)
        now = self._clock()
        try:
            principal = await self._store.get(key.owner)
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
        # Up to a second ahead after a change of roles; verifiers allow for far more.
        now = max(int(self._clock()), valid_from)
        key = current(self._keys, self._clock())
        if key is None:
            raise Unavailable(f"the control plane is starting: {self.problem}")
        return Token(sign(key, self._policy.issuer, subject, now, now + lifetime), lifetime)
