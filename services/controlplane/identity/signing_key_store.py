"""Stores signing keys in MongoDB, each sealed with the root key."""

from __future__ import annotations

from pymongo.asynchronous.database import AsyncDatabase

from services.chassis.mongo import Document, errors
from services.controlplane.config import MAX_LIFETIME_SECONDS
from services.controlplane.identity.documents import to_date
from services.controlplane.identity.sealing import Sealer
from services.controlplane.identity.signing_keys import (
    GRACE_SECONDS,
    SigningKey,
    read_signing_key,
)


class SigningKeyStore:
    """Reads, adds and retires signing keys. Methods raise Unavailable when the database does not
    answer.
    """

    def __init__(self, database: AsyncDatabase[Document], sealer: Sealer) -> None:
        self._keys = database["signing_keys"]
        self._sealer = sealer

    async def prepare(self) -> None:
        """Creates the index by which MongoDB deletes keys that no longer verify any token."""
        async with errors():
            await self._keys.create_index("purge_at", expireAfterSeconds=0)

    async def signing_keys(self) -> list[SigningKey]:
        """Returns all signing keys. Raises WrongRootKey if one was sealed with another root key."""
        async with errors():
            documents = await self._keys.find({}).to_list()
        return [
            read_signing_key(
                self._sealer.open(document["_id"], document["sealed"]),
                document["signs_from"],
                document["retired_at"],
            )
            for document in documents
        ]

    async def add_signing_key(self, key: SigningKey) -> None:
        """Adds a key, and retires all others at the time from which this one signs."""
        purge_at = to_date(key.signs_from + MAX_LIFETIME_SECONDS + GRACE_SECONDS)
        async with errors():
            await self._keys.insert_one(
                {
                    "_id": key.kid,
                    "sealed": self._sealer.seal(key.kid, key.private_der()),
                    "signs_from": key.signs_from,
                    "retired_at": None,
                }
            )
            await self._keys.update_many(
                {"_id": {"$ne": key.kid}, "retired_at": None},
                {"$set": {"retired_at": key.signs_from, "purge_at": purge_at}},
            )
