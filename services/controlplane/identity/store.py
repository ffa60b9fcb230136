"""Principals, API keys and signing keys in MongoDB. Every change is one document or one
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from services.chassis.mongo import Document, errors, in_transaction
from services.controlplane.identity.issuer import (
    GRACE_SECONDS,
    MAX_LIFETIME_SECONDS,
    SigningKey,
    read_signing_key,
)
from services.controlplane.identity.principals import ADMIN, ApiKey, Principal
from services.controlplane.identity.sealing import Sealer
from stellwerk.wire.errors import AlreadyExists, Conflict, KeyNotFound, NotReady, PrincipalNotFound
from stellwerk.wire.permissions import Grant

# What is gone is remembered for as long as a token that came of it could be good.
_REMEMBERED_SECONDS = MAX_LIFETIME_SECONDS + GRACE_SECONDS
_LAST_ADMIN = (
    "this is the last administrator; give another enabled principal the role admin on all buckets"
    " ('*') first"
)
_HOLDS_ADMIN = {"disabled": False, "roles": [ADMIN.role, ADMIN.bucket]}


@dataclass(frozen=True, slots=True)
class Revocations:
    """Whose tokens are refused: those of these API keys, of these principals, and those issued
    before a second.
    """

    key_ids: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    valid_from: Mapping[str, int] = field(default_factory=dict)


class IdentityStore:
    """The control plane's own collections. Methods raise Unavailable when the database does not
    answer.
    """

    def __init__(self, client: AsyncMongoClient[Document], database: str, sealer: Sealer) -> None:
        self._client = client
        self._sealer = sealer
        self._principals = client[database]["principals"]
        # Ids of principals that were deleted, while tokens of theirs could still live.
        self._departed = client[database]["departed"]
        self._keys = client[database]["api_keys"]
        self._signing = client[database]["signing_keys"]
        # One document that all changes to administrators write to, so that no two of them pass each
        # other unseen.
        self._guards = client[database]["guards"]

    async def prepare(self) -> None:
        """Creates the indexes and the collections that transactions write to."""
        async with errors():
            await self._keys.create_index([("owner_uid", 1), ("created_at", -1)])
            await self._keys.create_index([("revoked_at", 1)], sparse=True)
            await self._principals.create_index([("roles", 1), ("disabled", 1)])
            await self._principals.create_index([("tokens_valid_from", 1)])
            for collection in (self._keys, self._departed, self._signing):
                await collection.create_index("purge_at", expireAfterSeconds=0)
            await self._guards.update_one(
                {"_id": "admins"}, {"$setOnInsert": {"changes": 0}}, upsert=True
            )

    async def fit(self) -> None:
        """Raises NotReady if this MongoDB cannot do transactions."""
        async with errors():
            hello = await self._client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise NotReady(
                "MongoDB must run as a replica set, of one member at least: it has no transactions"
                " otherwise"
            )

    # --- principals

    async def create(self, principal: Principal, key: ApiKey | None = None) -> None:
        """Adds a principal, with its first key if one is given. Raises AlreadyExists."""

        async def work(session: AsyncClientSession) -> None:
            await self._principals.insert_one(_principal_document(principal), session=session)
            await self._departed.delete_one({"_id": principal.id}, session=session)
            if key is not None:
                await self._keys.insert_one(_key_document(key), session=session)

        try:
            await in_transaction(self._client, work)
        except DuplicateKeyError:
            raise AlreadyExists(
                f"{principal.name} exists already; choose another name", principal=principal.name
            ) from None

    async def get(self, principal_id: str) -> Principal:
        """Raises PrincipalNotFound."""
        async with errors():
            document = await self._principals.find_one({"_id": principal_id})
        if document is None:
            raise _no_principal(principal_id)
        return _principal(document)

    async def page(self, after: str, limit: int) -> list[Principal]:
        """Principals in order of id, those after `after`."""
        async with errors():
            documents = await self._principals.find(
                {"_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit
            ).to_list()
        return [_principal(document) for document in documents]

    async def replace(self, before: Principal, after: Principal) -> None:
        """Compare-and-set by etag. Raises Conflict, PrincipalNotFound, or NotReady for the last
        administrator.
        """

        async def work(session: AsyncClientSession) -> None:
            await self._guard_admins(before, after, session)
            result = await self._principals.replace_one(
                {"_id": before.id, "etag": before.etag}, _principal_document(after), session=session
            )
            if not result.matched_count:
                await self._explain_miss(before, session)

        await in_transaction(self._client, work)

    async def delete(self, principal: Principal, now: float) -> None:
        """Removes it and its keys; remembers both while tokens of theirs could live. Raises as
        `replace` does.
        """
        purge_at = _date(now + _REMEMBERED_SECONDS)

        async def work(session: AsyncClientSession) -> None:
            await self._guard_admins(principal, None, session)
            result = await self._principals.delete_one(
                {"_id": principal.id, "etag": principal.etag}, session=session
            )
            if not result.deleted_count:
                await self._explain_miss(principal, session)
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
        """Whether any enabled principal is an administrator."""
        async with errors():
            return await self._principals.find_one(_HOLDS_ADMIN) is not None

    async def _guard_admins(
        self, before: Principal, after: Principal | None, session: AsyncClientSession
    ) -> None:
        if not before.administers or (after is not None and after.administers):
            return
        # Two such changes at once conflict on this document, so the second one counts what the
        # first has left.
        await self._guards.update_one(
            {"_id": "admins"}, {"$inc": {"changes": 1}}, upsert=True, session=session
        )
        others = {**_HOLDS_ADMIN, "_id": {"$ne": before.id}}
        if await self._principals.find_one(others, session=session) is None:
            raise NotReady(_LAST_ADMIN, principal=before.name)

    async def _explain_miss(self, principal: Principal, session: AsyncClientSession) -> None:
        if await self._principals.find_one({"_id": principal.id}, session=session) is None:
            raise _no_principal(principal.id)
        raise Conflict(
            f"{principal.name} was changed by somebody else; read it again and repeat the change",
            principal=principal.name,
        )

    # --- API keys

    async def add_key(self, key: ApiKey) -> None:
        """Raises AlreadyExists if the key is known."""
        async with errors():
            try:
                await self._keys.insert_one(_key_document(key))
            except DuplicateKeyError:
                raise AlreadyExists(
                    "this key exists already; make another one", key=key.name
                ) from None

    async def find_key(self, key_id: str) -> ApiKey | None:
        async with errors():
            document = await self._keys.find_one({"_id": key_id})
        return _key(document) if document else None

    async def keys_of(self, principal: Principal) -> list[ApiKey]:
        """Its keys, newest first."""
        async with errors():
            cursor = self._keys.find(
                {"owner_uid": principal.uid}, sort=[("created_at", -1), ("_id", 1)]
            )
            return [_key(document) for document in await cursor.to_list()]

    async def revoke_key(self, principal: Principal, key_id: str, now: float) -> ApiKey:
        """Revokes a key, once: the time of the first revocation stays. Raises KeyNotFound."""
        mine = {"_id": key_id, "owner_uid": principal.uid}
        async with errors():
            await self._keys.update_one({**mine, "revoked_at": None}, {"$set": {"revoked_at": now}})
            document = await self._keys.find_one(mine)
        if document is None:
            raise KeyNotFound(f"{principal.name} has no key '{key_id}'", key=key_id)
        return _key(document)

    async def revocations(self, now: float) -> Revocations:
        """Whose tokens are to be refused now."""
        async with errors():
            since = now - _REMEMBERED_SECONDS
            keys = await self._keys.find({"revoked_at": {"$gt": since}}, {"_id": 1}).to_list()
            # Who was disabled longer ago than a token lives has none left.
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

    # --- signing keys

    async def signing_keys(self) -> list[SigningKey]:
        """All signing keys. Raises WrongRootKey if one was sealed with another root key."""
        async with errors():
            documents = await self._signing.find({}).to_list()
        return [
            read_signing_key(
                self._sealer.open(doc["_id"], doc["sealed"]), doc["signs_from"], doc["retired_at"]
            )
            for doc in documents
        ]

    async def add_signing_key(self, key: SigningKey) -> None:
        """Adds a key, and retires all others from the moment on at which this one signs."""
        retirement = {
            "retired_at": key.signs_from,
            "purge_at": _date(key.signs_from + _REMEMBERED_SECONDS),
        }
        async with errors():
            await self._signing.insert_one(
                {
                    "_id": key.kid,
                    "sealed": self._sealer.seal(key.kid, key.private_der()),
                    "signs_from": key.signs_from,
                    "retired_at": None,
                }
            )
            await self._signing.update_many(
                {"_id": {"$ne": key.kid}, "retired_at": None}, {"$set": retirement}
            )


def _no_principal(principal_id: str) -> PrincipalNotFound:
    return PrincipalNotFound(
        f"there is no principals/{principal_id}", principal=f"principals/{principal_id}"
    )


def _date(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _grants(pairs: Iterable[Any]) -> tuple[Grant, ...]:
    return tuple(Grant(role, bucket) for role, bucket in pairs)


def _principal_document(principal: Principal) -> Document:
    return {
        "_id": principal.id,
        "uid": principal.uid,
        "display_name": principal.display_name,
        "roles": [[grant.role, grant.bucket] for grant in principal.roles],
        "disabled": principal.disabled,
        "created_at": principal.created_at,
        "etag": principal.etag,
        "tokens_valid_from": principal.tokens_valid_from,
    }


def _principal(doc: Document) -> Principal:
    return Principal(
        doc["_id"],
        doc["uid"],
        doc["display_name"],
        _grants(doc["roles"]),
        doc["disabled"],
        doc["created_at"],
        doc["etag"],
        doc["tokens_valid_from"],
    )


def _key_document(key: ApiKey) -> Document:
    return {
        "_id": key.id,
        "owner": key.owner,
        "owner_uid": key.owner_uid,
        "display_name": key.display_name,
        "hash": key.hash,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _key(doc: Document) -> ApiKey:
    return ApiKey(
        doc["_id"],
        doc["owner"],
        doc["owner_uid"],
        doc["display_name"],
        bytes(doc["hash"]),
        doc["created_at"],
        doc["expires_at"],
        doc["revoked_at"],
    )
