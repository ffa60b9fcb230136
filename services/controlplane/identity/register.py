"""The register of principals and their API keys: the use cases behind IdentityService.

A change is in the register, and in what this control plane trusts, before its caller gets an
answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.controlplane.identity import keys
from services.controlplane.identity.principals import (
    ApiKey,
    Principal,
    changed,
    check_display_name,
    check_roles,
    fields_to_change,
    parse_key,
    parse_principal,
)
from services.controlplane.identity.store import IdentityStore
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire import paging
from stellwerk.wire.errors import Conflict, InvalidInput

_LISTING = "principals"
# Without an etag of the caller's the last change wins; a few rounds settle who that is.
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made, with the only copy of its secret."""

    key: ApiKey
    secret: str


class Register:
    """Principals and API keys. `published` is awaited after each change that others must trust no
    longer, or again.
    """

    def __init__(
        self,
        store: IdentityStore,
        clock: Callable[[], float],
        published: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._clock, self._published = store, clock, published

    async def create(self, wanted: pb.Principal) -> Principal:
        """Raises InvalidInput or AlreadyExists."""
        principal = Principal(
            id=parse_principal(wanted.name),
            uid=uuid.uuid4().hex,
            display_name=check_display_name(wanted.display_name),
            roles=check_roles(wanted.roles),
            disabled=wanted.disabled,
            created_at=self._clock(),
            etag=uuid.uuid4().hex,
        )
        await self._store.create(principal)
        await self._published()
        return principal

    async def get(self, name: str) -> Principal:
        """Raises InvalidInput or PrincipalNotFound."""
        return await self._store.get(parse_principal(name))

    async def page(self, page_size: int, page_token: str) -> tuple[list[Principal], str]:
        """A page of principals by name, and the token of the next one."""
        size = paging.page_size(page_size)
        found = await self._store.page(paging.decode(_LISTING, page_token), size + 1)
        more = len(found) > size
        return found[:size], paging.encode(_LISTING, found[size - 1].id) if more else ""

    async def update(self, wanted: pb.Principal, mask: list[str]) -> Principal:
        """Raises InvalidInput, PrincipalNotFound, Conflict for a stale etag, NotReady for the last
        administrator.
        """
        principal_id = parse_principal(wanted.name)
        fields = fields_to_change(mask, wanted)
        for rounds_left in reversed(range(_ROUNDS)):
            before = await self._store.get(principal_id)
            after = changed(before, wanted, fields, uuid.uuid4().hex, self._clock())
            if wanted.etag and wanted.etag != before.etag:
                raise Conflict(
                    f"{before.name} was changed since you read it; read it again and repeat the"
                    " change",
                    principal=before.name,
                )
            try:
                await self._store.replace(before, after)
            except Conflict:
                if wanted.etag or not rounds_left:
                    raise
                continue
            break
        await self._published()
        return after

    async def delete(self, name: str) -> None:
        """Raises InvalidInput, PrincipalNotFound, Conflict, NotReady for the last administrator."""
        await self._store.delete(await self.get(name), self._clock())
        await self._published()

    async def create_key(self, parent: str, wanted: pb.ApiKey) -> NewKey:
        """Raises InvalidInput or PrincipalNotFound."""
        principal = await self.get(parent)
        now = self._clock()
        expires_at = (
            wanted.expire_time.ToNanoseconds() / 1e9 if wanted.HasField("expire_time") else None
        )
        if expires_at is not None and expires_at <= now:
            raise InvalidInput(
                "expire_time is in the past; leave it out for a key that never lapses",
                field="expire_time",
            )
        made = make_key(principal, check_display_name(wanted.display_name), now, expires_at)
        await self._store.add_key(made.key)
        return made

    async def keys_of(self, parent: str) -> list[ApiKey]:
        """Its keys, newest first. Raises InvalidInput or PrincipalNotFound."""
        return await self._store.keys_of(await self.get(parent))

    async def revoke_key(self, name: str) -> ApiKey:
        """Raises InvalidInput, PrincipalNotFound, KeyNotFound. Revoking twice is no error."""
        principal_id, key_id = parse_key(name)
        key = await self._store.revoke_key(
            await self._store.get(principal_id), key_id, self._clock()
        )
        await self._published()
        return key


def make_key(
    principal: Principal, display_name: str, now: float, expires_at: float | None = None
) -> NewKey:
    """A new key of the principal's, not yet stored."""
    key_id, secret = keys.new_api_key()
    return NewKey(key_for(principal, key_id, secret, display_name, now, expires_at), secret)


def key_for(
    principal: Principal,
    key_id: str,
    secret: str,
    display_name: str,
    now: float,
    expires_at: float | None = None,
) -> ApiKey:
    """The record of a key with this secret."""
    return ApiKey(
        key_id, principal.id, principal.uid, display_name, keys.digest(secret), now, expires_at
    )
