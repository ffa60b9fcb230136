"""Stores principals and API keys in MongoDB; every change is one document or one transaction."""

from __future__ import annotations

from collections.abc import Callable

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from services.chassis.mongo import Document, errors, in_transaction
from services.controlplane.config import MAX_LIFETIME_SECONDS
from services.controlplane.identity.documents import (
    key_document,
    principal_document,
    to_date,
    to_key,
    to_principal,
)
from services.controlplane.identity.principals import ADMIN, ApiKey, Principal, Revocations
from services.controlplane.identity.signing_keys import GRACE_SECONDS
from stellwerk.wire.errors import AlreadyExists, Conflict, KeyNotFound, NotReady, PrincipalNotFound

# Seconds for which deleted principals and revoked keys are kept: as long as a token issued to them
# could be accepted.
_REMEMBERED_SECONDS = MAX_LIFETIME_SECONDS + GRACE_SECONDS
_LAST_ADMIN = (
    "this is the last administrator; give another enabled principal the role admin on all buckets"
    " ('*') first"
)
_HOLDS_ADMIN = {"disabled": False, "roles": [ADMIN.role, ADMIN.bucket]}


class IdentityStore:
    """Reads and changes principals and API keys. Methods raise Unavailable when the database does
    not answer.
    """

    def __init__(self, client: AsyncMongoClient[Document], database: str) -> None:
        self._client = client
        self._principals = client[database]["principals"]
        # Ids of deleted principals, kept while tokens issued to them could be accepted.
        self._departed = client[database]["departed"]
        self._keys = client[database]["api_keys"]
        # One document that every change to administrators writes, so that two such changes collide.
        self._guards = client[database]["guards"]

    async def prepare(self) -> None:
        """Creates the indexes, and the collections that transactions write to."""
        async with errors():
            await self._keys.create_index([("owner_uid", 1), ("created_at", -1)])
            await self._keys.create_index([("revoked_at", 1)], sparse=True)
            await self._principals.create_index([("roles", 1), ("disabled", 1)])
            await self._principals.create_index([("tokens_valid_from", 1)])
            for collection in (self._keys, self._departed):
                await collection.create_index("purge_at", expireAfterSeconds=0)
            await self._guards.update_one(
                {"_id": "admins"}, {"$setOnInsert": {"changes": 0}}, upsert=True
            )

    async def check_transactions(self) -> None:
        """Raises NotReady if this MongoDB has no transactions."""
        async with errors():
            hello = await self._client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise NotReady(
                "MongoDB must run as a replica set, of one member at least: it has no transactions"
                " otherwise"
            )

    # --- principals

    async def create(self, principal: Principal, key: ApiKey | None = None) -> None:
        """Adds a principal, and its first key if one is given. Raises AlreadyExists."""

        async def work(session: AsyncClientSession) -> None:
            await self._principals.insert_one(principal_document(principal), session=session)
            await self._departed.delete_one({"_id": principal.id}, session=session)
            if key is not None:
                await self._keys.insert_one(key_document(key), session=session)

        try:
            await in_transaction(self._client, work)
        except DuplicateKeyError:
            raise AlreadyExists(
                f"{principal.name} exists already; choose another name", principal=principal.name
            ) from None

    async def get(self, principal_id: str) -> Principal:
        """Returns the principal. Raises PrincipalNotFound."""
        async with errors():
            document = await self._principals.find_one({"_id": principal_id})
        if document is None:
            raise _principal_not_found(principal_id)
        return to_principal(document)

    async def page(self, after: str, limit: int) -> list[Principal]:
        """Returns up to `limit` principals with an id > `after`, in order of their ids."""
        async with errors():
            documents = await self._principals.find(
                {"_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit
            ).to_list()
        return [to_principal(document) for document in documents]

    async def update(
        self, principal_id: str, change: Callable[[Principal], Principal]
    ) -> Principal:
        """Replaces a principal by `change(principal)` in one transaction; returns the new one.

        Of two concurrent updates one runs again, with what the other left; so `change` may be
        called several times. Raises PrincipalNotFound, NotReady for the last administrator, and
        what `change` raises.
        """

        async def work(session: AsyncClientSession) -> Principal:
            document = await self._principals.find_one({"_id": principal_id}, session=session)
            if document is None:
                raise _principal_not_found(principal_id)
            before = to_principal(document)
            after = change(before)
            await self._guard_admins(before, after, session)
            await self._principals.replace_one(
                {"_id": principal_id}, principal_document(after), session=session
            )
            return after

        return await in_transaction(self._client, work)

    async def delete(self, principal: Principal, now: float) -> None:
        """Deletes a principal and revokes its keys; keeps both ids while tokens issued to them
        could be accepted.

        Raises PrincipalNotFound, Conflict for another etag, NotReady for the last administrator.
        """
        purge_at = to_date(now + _REMEMBERED_SECONDS)

        async def work(session: AsyncClientSession) -> None:
            await self._guard_admins(principal, None, session)
            result = await self._principals.delete_one(
                {"_id": principal.id, "etag": principal.etag}, session=session
            )
            if not result.deleted_count:
                await self._raise_miss(principal, session)
            await self._departed.replace_one(
                {"_id": principal.id},
                {"_id": principal.id, "purge_at": purge_at},
                upsert=True,
                session=session,
            )
            await self._keys.update_many(
                {"owner_uid": principal.uid},
                {"$set": {"revoked_at": now, "purge_at": purge_at}},
                session=session,
            )

        await in_transaction(self._client, work)

    async def administered(self) -> bool:
        """Returns whether an enabled principal is an administrator."""
        async with errors():
            return await self._principals.find_one(_HOLDS_ADMIN) is not None

    async def _guard_admins(
        self, before: Principal, after: Principal | None, session: AsyncClientSession
    ) -> None:
        if not before.administers or (after is not None and after.administers):
            return
        # Two concurrent changes collide on this document; the second runs again and counts the
        # administrators that the first left.
        await self._guards.update_one(
            {"_id": "admins"}, {"$inc": {"changes": 1}}, upsert=True, session=session
        )
        others = {**_HOLDS_ADMIN, "_id": {"$ne": before.id}}
        if await self._principals.find_one(others, session=session) is None:
            raise NotReady(_LAST_ADMIN, principal=before.name)

    async def _raise_miss(self, principal: Principal, session: AsyncClientSession) -> None:
        """Raises PrincipalNotFound for a deleted principal, Conflict for a changed one."""
        if await self._principals.find_one({"_id": principal.id}, session=session) is None:
            raise _principal_not_found(principal.id)
        raise Conflict(
            f"{principal.name} was changed by somebody else; read it again and repeat the change",
            principal=principal.name,
        )

    # --- API keys

    async def add_key(self, key: ApiKey) -> None:
        """Adds an API key. Raises AlreadyExists."""
        async with errors():
            try:
                await self._keys.insert_one(key_document(key))
            except DuplicateKeyError:
                raise AlreadyExists(
                    "this key exists already; make another one", key=key.name
                ) from None

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Returns the API key with this id, None if there is none."""
        async with errors():
            document = await self._keys.find_one({"_id": key_id})
        return to_key(document) if document else None

    async def keys_of(self, principal: Principal) -> list[ApiKey]:
        """Returns a principal's keys, newest first."""
        async with errors():
            cursor = self._keys.find(
                {"owner_uid": principal.uid}, sort=[("created_at", -1), ("_id", 1)]
            )
            return [to_key(document) for document in await cursor.to_list()]

    async def revoke_key(self, principal: Principal, key_id: str, now: float) -> ApiKey:
        """Revokes a key and returns it; a first revocation's time stays. Raises KeyNotFound."""
        mine = {"_id": key_id, "owner_uid": principal.uid}
        async with errors():
            await self._keys.update_one({**mine, "revoked_at": None}, {"$set": {"revoked_at": now}})
            document = await self._keys.find_one(mine)
        if document is None:
            raise KeyNotFound(f"{principal.name} has no key '{key_id}'", key=key_id)
        return to_key(document)

    async def revocations(self, now: float) -> Revocations:
        """Returns which tokens are to be refused now."""
        async with errors():
            since = now - _REMEMBERED_SECONDS
            keys = await self._keys.find({"revoked_at": {"$gt": since}}, {"_id": 1}).to_list()
            # A principal disabled longer ago than a token lives has no token left.
            altered = await self._principals.find({"tokens_valid_from": {"$gt": since}}).to_list()
            departed = await self._departed.find({}, {"_id": 1}).to_list()
        gone = [document["_id"] for document in departed] + [
            doc["_id"] for doc in altered if doc["disabled"]
        ]
        return Revocations(
            tuple(sorted(document["_id"] for document in keys)),
            tuple(sorted({f"principals/{principal_id}" for principal_id in gone})),
            {
                f"principals/{document['_id']}": document["tokens_valid_from"]
                for document in altered
            },
        )


def _principal_not_found(principal_id: str) -> PrincipalNotFound:
    return PrincipalNotFound(
        f"there is no principals/{principal_id}", principal=f"principals/{principal_id}"
    )
