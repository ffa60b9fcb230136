"""Creates, reads, changes and deletes principals and their API keys: the use cases of
IdentityService.

A change is stored, and published by this control plane, before its caller gets an answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.controlplane.identity import keys
from services.controlplane.identity.principals import (
    ApiKey,
    Principal,
    apply_update,
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


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new API key with its text, which is stored nowhere else."""

    key: ApiKey
    secret: str


class PrincipalRegister:
    """Creates, reads, changes and deletes principals and API keys. Awaits `publish` after every
    change that affects which tokens are valid.
    """

    def __init__(
        self,
        store: IdentityStore,
        clock: Callable[[], float],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._publish = publish

    async def create(self, wanted: pb.Principal) -> Principal:
        """Creates a principal and returns it. Raises InvalidInput or AlreadyExists."""
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
        await self._publish()
        return principal

    async def get(self, name: str) -> Principal:
        """Returns the principal. Raises InvalidInput or PrincipalNotFound."""
        return await self._store.get(parse_principal(name))

    async def page(self, page_size: int, page_token: str) -> tuple[list[Principal], str]:
        """Returns a page of principals in order of their ids, and the next page's token."""
        size = paging.page_size(page_size)
        found = await self._store.page(paging.decode(_LISTING, page_token), size + 1)
        more = len(found) > size
        return found[:size], paging.encode(_LISTING, found[size - 1].id) if more else ""

    async def update(self, wanted: pb.Principal, mask: list[str]) -> Principal:
        """Changes the fields of the mask and returns the principal; without an etag the last change
        wins.

        Raises InvalidInput, PrincipalNotFound, Conflict for a stale etag, and NotReady for a change
        that would leave no administrator.
        """
        principal_id = parse_principal(wanted.name)
        fields = fields_to_change(mask, wanted)

        def change(before: Principal) -> Principal:
            after = apply_update(before, wanted, fields, uuid.uuid4().hex, self._clock())
            if wanted.etag and wanted.etag != before.etag:
                raise Conflict(
                    f"{before.name} was changed since you read it; read it again and repeat the"
                    " change",
                    principal=before.name,
                )
            return after

        updated = await self._store.update(principal_id, change)
        await self._publish()
        return updated

    async def delete(self, name: str) -> None:
        """Deletes a principal with its keys.

        Raises InvalidInput, PrincipalNotFound, Conflict, and NotReady for the last administrator.
        """
        await self._store.delete(await self.get(name), self._clock())
        await self._publish()

    async def create_key(self, parent: str, wanted: pb.ApiKey) -> NewKey:
        """Creates an API key and returns it with its text. Raises InvalidInput or
        PrincipalNotFound.
        """
        principal = await self.get(parent)
        now = self._clock()
        expires_at = (
            wanted.expire_time.ToNanoseconds() / 1e9 if wanted.HasField("expire_time") else None
        )
        if expires_at is not None and expires_at <= now:
            raise InvalidInput(
                "expire_time is in the past; leave it out for a key that never expires",
                field="expire_time",
            )
        made = make_key(principal, check_display_name(wanted.display_name), now, expires_at)
        await self._store.add_key(made.key)
        return made

    async def keys_of(self, parent: str) -> list[ApiKey]:
        """Returns a principal's keys, newest first. Raises InvalidInput or PrincipalNotFound."""
        return await self._store.keys_of(await self.get(parent))

    async def revoke_key(self, name: str) -> ApiKey:
        """Revokes a key and returns it; revoking it again changes nothing.

        Raises InvalidInput, PrincipalNotFound or KeyNotFound.
        """
        principal_id, key_id = parse_key(name)
        key = await self._store.revoke_key(
            await self._store.get(principal_id), key_id, self._clock()
        )
        await self._publish()
        return key


def make_key(
    principal: Principal, display_name: str, now: float, expires_at: float | None = None
) -> NewKey:
    """Returns a new API key of the principal, not yet stored."""
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
    """Returns the record of the API key with this id and text."""
    return ApiKey(
        key_id, principal.id, principal.uid, display_name, keys.digest(secret), now, expires_at
    )
