"""Principals, keys and signing keys in memory, for what only reads them to issue tokens or to make
an administrator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.controlplane.identity.principals import ApiKey, Principal, Revocations
from services.controlplane.identity.signing_keys import SigningKey
from stellwerk.wire.errors import AlreadyExists, PrincipalNotFound


class FakeCredentials:
    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}
        self.keys: dict[str, ApiKey] = {}
        self.signing: list[SigningKey] = []
        self.revoked = Revocations()

    async def check_transactions(self) -> None:
        pass

    async def administered(self) -> bool:
        return any(principal.administers for principal in self.principals.values())

    async def get(self, principal_id: str) -> Principal:
        if principal_id not in self.principals:
            raise PrincipalNotFound(f"there is no principals/{principal_id}")
        return self.principals[principal_id]

    async def create(self, principal: Principal, key: ApiKey | None = None) -> None:
        if principal.id in self.principals:
            raise AlreadyExists(f"{principal.name} exists already")
        self.principals[principal.id] = principal
        if key is not None:
            self.keys[key.id] = key

    async def update(
        self, principal_id: str, change: Callable[[Principal], Principal]
    ) -> Principal:
        self.principals[principal_id] = change(await self.get(principal_id))
        return self.principals[principal_id]

    async def find_key(self, key_id: str) -> ApiKey | None:
        return self.keys.get(key_id)

    async def add_key(self, key: ApiKey) -> None:
        if key.id in self.keys:
            raise AlreadyExists("this key exists already")
        self.keys[key.id] = key

    async def revocations(self, now: float) -> Revocations:
        return self.revoked

    async def signing_keys(self) -> list[SigningKey]:
        return list(self.signing)

    async def add_signing_key(self, key: SigningKey) -> None:
        retired = (
            old if old.retired_at else replace(old, retired_at=key.signs_from)
            for old in self.signing
        )
        self.signing = [*retired, key]
