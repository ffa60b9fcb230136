"""Stores buckets, the units that access is granted on. The default bucket always exists; a bucket
that holds models cannot be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.chassis.mongo import Document, errors
from services.repository.catalogue import documents
from services.repository.mongo import Database, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import AlreadyExists, BucketNotFound, NotReady
from stellwerk.wire.names import DEFAULT_BUCKET


class Buckets:
    """Creates, reads and deletes buckets in MongoDB. `bucket` is a bucket's id."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, bucket: str, description: str, creator: str) -> pb.Bucket:
        """Creates a bucket and returns it. Raises AlreadyExists."""
        fresh = {"description": description, "creator": creator, "created": now(), "models": 0}
        async with errors():
            result = await self._db.buckets.update_one(
                {"_id": bucket}, {"$setOnInsert": fresh}, upsert=True
            )
        if result.matched_count:
            raise AlreadyExists(f"bucket '{bucket}' exists already", bucket=bucket)
        return documents.to_bucket({"_id": bucket, **fresh})

    async def get(self, bucket: str) -> pb.Bucket:
        """Returns the bucket. Raises BucketNotFound."""
        return documents.to_bucket(await self.require(bucket))

    async def require(self, bucket: str) -> Document:
        """Returns the bucket's document. Raises BucketNotFound."""
        async with errors():
            found = await self._db.buckets.find_one({"_id": {"$eq": bucket}})
            if found is None and bucket == DEFAULT_BUCKET:
                # Somebody dropped the database under the running process.
                await self._db.ensure_default_bucket()
                found = await self._db.buckets.find_one({"_id": DEFAULT_BUCKET})
        if found is None:
            raise BucketNotFound(f"there is no bucket '{bucket}'; create it first", bucket=bucket)
        return found

    async def list(self, among: Iterable[str] | None, after: str, limit: int) -> list[pb.Bucket]:
        """Returns up to `limit` buckets in order of their ids, from those with an id > `after`;
        `among` limits them to these ids, None does not.
        """
        query: Document = {"_id": {"$gt": after}}
        if among is not None:
            query["_id"]["$in"] = sorted(among)
        async with errors():
            found = await self._db.buckets.find(query, sort=[("_id", 1)], limit=limit).to_list()
        return [documents.to_bucket(document) for document in found]

    async def delete(self, bucket: str) -> None:
        """Deletes an empty bucket. Raises BucketNotFound; NotReady for a bucket that holds models
        and for the default bucket.
        """
        if bucket == DEFAULT_BUCKET:
            raise NotReady("the default bucket cannot be deleted", bucket=bucket)
        async with errors():
            result = await self._db.buckets.delete_one({"_id": {"$eq": bucket}, "models": 0})
        if not result.deleted_count:
            await self.require(bucket)
            raise NotReady(f"bucket '{bucket}' holds models; delete them first", bucket=bucket)
