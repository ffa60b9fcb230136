"""Stores models and their versions in MongoDB; every change is one transaction with its event.

Every change of a model writes the model's document, so of two concurrent changes of one model
MongoDB lets one fail and run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from pymongo import ReturnDocument

from services.chassis.mongo import Document, errors
from services.repository.catalogue import documents
from services.repository.catalogue.documents import children, model_key, version_key
from services.repository.catalogue.filters import Term
from services.repository.events.outbox import Outbox
from services.repository.mongo import Database, Session, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import topology
from stellwerk.wire.errors import BucketNotFound, ModelNotFound, NotReady, VersionNotFound
from stellwerk.wire.names import ModelName


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """Names the GridFS file with a version's bytes, with their SHA-256 in hex and their number."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Describes a version to be created: what its creator declared, and its stored artifact."""

    spec: pb.ModelVersion
    creator: str
    artifact: StoredArtifact
    upload_id: str


class Models:
    """Reads, creates and deletes models and versions."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._db = database
        self._outbox = outbox

    async def model(self, name: ModelName) -> pb.Model:
        """Returns the model. Raises ModelNotFound."""
        return documents.to_model(await self.document(name))

    async def models(
        self, bucket: str, terms: Iterable[Term], after: str, limit: int
    ) -> list[pb.Model]:
        """Returns up to `limit` models of a bucket that meet all terms, in order of their ids, from
        those with an id > `after`.
        """
        keys = children(bucket) | ({"$gt": f"{bucket}/{after}"} if after else {})
        async with errors():
            query = {"_id": keys, **documents.conditions(terms)}
            found = await self._db.models.find(query, sort=[("_id", 1)], limit=limit).to_list()
        return [documents.to_model(document) for document in found]

    async def delete_model(self, name: ModelName) -> list[str]:
        """Deletes a model with its versions and aliases; returns the ids of their artifacts' files.
        Raises ModelNotFound.

        Keeps the counter of the model's versions: a later model of the same name continues the
        numbering, so that no cache confuses its versions with the deleted ones.
        """
        key = model_key(name)

        async def change(session: Session) -> list[str]:
            deleted = await self._db.models.delete_one({"_id": {"$eq": key}}, session=session)
            if not deleted.deleted_count:
                raise _model_not_found(name)
            found = await self._db.versions.find(
                {"_id": children(key)}, {"file": 1}, session=session
            ).to_list()
            files = [document["file"] for document in found]
            await self._db.versions.delete_many({"_id": children(key)}, session=session)
            await self._db.files.delete_many({"_id": {"$in": files}}, session=session)
            await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": -1}}, session=session
            )
            await self._outbox.add(session, topology.MODEL_DELETED, name.parent)
            return files

        return await self._outbox.commit(change)

    async def version(self, name: ModelName, version: int) -> pb.ModelVersion:
        """Returns a version by its number. Raises VersionNotFound or ModelNotFound."""
        return documents.to_version(await self.version_document(name, version))

    async def artifact(self, name: ModelName, version: int) -> StoredArtifact:
        """Returns where a version's bytes are stored. Raises VersionNotFound or ModelNotFound."""
        found = await self.version_document(name, version)
        return StoredArtifact(file=found["file"], sha256=found["sha256"], size=found["size"])

    async def versions(
        self, name: ModelName, terms: Iterable[Term], before: int | None, limit: int
    ) -> list[pb.ModelVersion]:
        """Returns up to `limit` versions of a model that meet all terms, newest first, from those
        with a number < `before` (None: from the newest).
        """
        key = model_key(name)
        keys = children(key) | ({"$lt": version_key(key, before)} if before is not None else {})
        async with errors():
            query = {"_id": keys, **documents.conditions(terms)}
            found = await self._db.versions.find(query, sort=[("_id", -1)], limit=limit).to_list()
        return [documents.to_version(document) for document in found]

    async def create_version(
        self,
        name: ModelName,
        new: NewVersion,
        close_upload: Callable[[int, Session], Awaitable[None]],
    ) -> pb.ModelVersion:
        """Creates the model's next version, and the model with its first one, in one transaction;
        returns the version.

        The transaction includes `close_upload(version, session)`; what it raises cancels the
        transaction. Raises BucketNotFound if the bucket was deleted since the upload was opened.
        """
        key, moment = model_key(name), now()

        async def change(session: Session) -> pb.ModelVersion:
            number = await self._next_number(key, session)
            version = pb.ModelVersion()
            version.CopyFrom(new.spec)
            version.name = f"{name.parent}/versions/{number}"
            version.version = number
            version.sha256 = new.artifact.sha256
            version.size_bytes = new.artifact.size
            version.creator = new.creator
            version.create_time.FromDatetime(moment)
            made = documents.of_new_version(version, key, new.artifact.file, new.upload_id)
            await close_upload(number, session)
            await self._put_newest(name, made.newest, moment, session)
            await self._db.versions.insert_one(made.version, session=session)
            await self._db.files.insert_one(made.file, session=session)
            facts = {"version": number, "sha256": version.sha256, "format": version.format}
            await self._outbox.add(session, topology.VERSION_CREATED, version.name, **facts)
            return version

        return await self._outbox.commit(change)

    async def delete_version(self, name: ModelName, version: int) -> str:
        """Deletes a version, and the model with its last one; returns the id of its artifact's
        file.

        Raises VersionNotFound or ModelNotFound; NotReady while an alias points to the version.
        """
        key = model_key(name)

        async def change(session: Session) -> str:
            model = await self.document(name, session)
            deleted = await self._db.versions.find_one_and_delete(
                {"_id": version_key(key, version)}, session=session
            )
            if deleted is None:
                raise _version_not_found(name, version)
            aliases = sorted(
                alias for alias, kept in model["aliases"].items() if kept["version"] == version
            )
            if aliases:
                raise NotReady(
                    f"version {version} has the alias {', '.join(map(repr, aliases))}; move or"
                    " delete the alias first",
                    version=version,
                    aliases=",".join(aliases),
                )
            await self._db.files.delete_one({"_id": deleted["file"]}, session=session)
            resource = f"{name.parent}/versions/{version}"
            await self._outbox.add(session, topology.VERSION_DELETED, resource, version=version)
            await self._put_remaining(name, session)
            return str(deleted["file"])

        return await self._outbox.commit(change)

    async def document(self, name: ModelName, session: Session | None = None) -> Document:
        """Returns the model's document, read within the transaction of `session` if one is given.
        Raises ModelNotFound.
        """
        async with _errors(session):
            found = await self._db.models.find_one(
                {"_id": {"$eq": model_key(name)}}, session=session
            )
        if found is None:
            raise _model_not_found(name)
        return found

    async def version_document(
        self, name: ModelName, version: int, session: Session | None = None
    ) -> Document:
        """Returns the version's document, read within the transaction of `session` if one is given.
        Raises VersionNotFound or ModelNotFound.
        """
        key = version_key(model_key(name), version)
        async with _errors(session):
            found = await self._db.versions.find_one({"_id": {"$eq": key}}, session=session)
        if found is None:
            await self.document(name, session)
            raise _version_not_found(name, version)
        return found

    async def _next_number(self, key: str, session: Session) -> int:
        counter = await self._db.counters.find_one_and_update(
            {"_id": key},
            {"$inc": {"last": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        assert counter is not None
        return int(counter["last"])

    async def _put_newest(
        self, name: ModelName, newest: Document, moment: datetime, session: Session
    ) -> None:
        """Writes the fields of the newest version into the model's document; the first version
        creates it.
        """
        before = await self._db.models.find_one_and_update(
            {"_id": {"$eq": model_key(name)}},
            {
                "$set": {**newest, "updated": moment},
                "$setOnInsert": {
                    "bucket": name.bucket,
                    "id": name.model,
                    "created": moment,
                    "aliases": {},
                },
                "$inc": {"versions": 1},
            },
            upsert=True,
            session=session,
        )
        if before is None:
            # Written, not only read: a concurrent deletion of the bucket then collides with this.
            result = await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": 1}}, session=session
            )
            if not result.matched_count:
                raise BucketNotFound(
                    f"there is no bucket '{name.bucket}'; create it first", bucket=name.bucket
                )

    async def _put_remaining(self, name: ModelName, session: Session) -> None:
        """Writes the model's document for the newest version left, or deletes it if none is."""
        key = model_key(name)
        versions = {"_id": children(key)}
        left = await self._db.versions.find_one(versions, sort=[("_id", -1)], session=session)
        if left is None:
            await self._db.models.delete_one({"_id": key}, session=session)
            await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": -1}}, session=session
            )
            await self._outbox.add(session, topology.MODEL_DELETED, name.parent)
            return
        newest = documents.newest(documents.to_version(left))
        update = {"$set": {**newest, "updated": now()}, "$inc": {"versions": -1}}
        await self._db.models.update_one({"_id": key}, update, session=session)


def _errors(session: Session | None) -> AbstractAsyncContextManager[None]:
    """Translates the driver's errors outside of a transaction; within one the driver itself needs
    them to decide whether to run the transaction again.
    """
    return errors() if session is None else nullcontext()


def _model_not_found(name: ModelName) -> ModelNotFound:
    message = f"there is no model '{name.model}' in bucket '{name.bucket}'"
    return ModelNotFound(message, model=name.model, bucket=name.bucket)


def _version_not_found(name: ModelName, version: int) -> VersionNotFound:
    return VersionNotFound(
        f"model '{name.model}' has no version {version}", model=name.model, version=version
    )
