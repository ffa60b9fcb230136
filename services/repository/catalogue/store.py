"""Models and their versions in MongoDB. Every change is one transaction together with its event.

Each change of a model writes the model's document, so two that touch the same model never both
succeed unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from pymongo import ASCENDING, DESCENDING, ReturnDocument

from services.chassis.mongo import Document, errors
from services.repository.artifacts.upload_sessions import Ticket, Tickets
from services.repository.catalogue import documents
from services.repository.catalogue.documents import children, model_key, version_key
from services.repository.catalogue.filters import Term
from services.repository.mongo import CHUNK_BYTES, Changes, Database, Session, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import topology
from stellwerk.wire.errors import BucketNotFound, ModelNotFound, NotReady, VersionNotFound
from stellwerk.wire.names import ModelName


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version's stored bytes."""

    file: str
    sha256: str
    size: int


class Store:
    """Models and versions."""

    def __init__(self, database: Database, changes: Changes, tickets: Tickets) -> None:
        self._db, self._changes, self._tickets = database, changes, tickets

    async def model(self, name: ModelName) -> pb.Model:
        """The model. Raises ModelNotFound."""
        return documents.to_model(await self.record(name))

    async def models(
        self, bucket: str, terms: Iterable[Term], after: str, limit: int
    ) -> list[pb.Model]:
        """The models of a bucket by name, after the given one."""
        keys = children(bucket) | ({"$gt": f"{bucket}/{after}"} if after else {})
        async with errors():
            query = {"_id": keys, **documents.conditions(terms)}
            found = await self._db.models.find(
                query, sort=[("_id", ASCENDING)], limit=limit
            ).to_list()
        return [documents.to_model(document) for document in found]

    async def delete_model(self, name: ModelName) -> list[str]:
        """Removes a model with its versions and aliases; returns the files that held its artifacts.

        The counter of its versions stays for good: a model of the same name goes on counting where
        this one ended, so that a number never means other bytes to a cache that still knows it.
        """
        key = model_key(name)

        async def work(session: Session) -> list[str]:
            if (
                await self._db.models.find_one_and_delete({"_id": {"$eq": key}}, session=session)
                is None
            ):
                raise _no_model(name)
            found = await self._db.versions.find(
                {"_id": children(key)}, {"file": 1}, session=session
            ).to_list()
            files = [document["file"] for document in found]
            await self._db.versions.delete_many({"_id": children(key)}, session=session)
            await self._db.files.delete_many({"_id": {"$in": files}}, session=session)
            await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": -1}}, session=session
            )
            await self._changes.note(session, topology.MODEL_DELETED, name.parent)
            return files

        return await self._changes.make(work)

    async def version(self, name: ModelName, version: int) -> pb.ModelVersion:
        """A version by number. Raises VersionNotFound or ModelNotFound."""
        return documents.to_version(await self.require_version(name, version))

    async def artifact(self, name: ModelName, version: int) -> Artifact:
        """Where a version's bytes are and what they must be. Raises VersionNotFound or
        ModelNotFound.
        """
        found = await self.require_version(name, version)
        return Artifact(file=found["file"], sha256=found["sha256"], size=found["size"])

    async def versions(
        self, name: ModelName, terms: Iterable[Term], before: int | None, limit: int
    ) -> list[pb.ModelVersion]:
        """The versions of a model, newest first, older than the given one."""
        key = model_key(name)
        keys = children(key) | ({"$lt": version_key(key, before)} if before is not None else {})
        async with errors():
            query = {"_id": keys, **documents.conditions(terms)}
            found = await self._db.versions.find(
                query, sort=[("_id", DESCENDING)], limit=limit
            ).to_list()
        return [documents.to_version(document) for document in found]

    async def commit(
        self, name: ModelName, ticket: Ticket, token: str, sha256: str, size: int
    ) -> pb.ModelVersion:
        """Makes a streamed upload the model's next version, in one step.

        Raises Conflict if the stream is no longer the upload's one, BucketNotFound if the bucket is
        gone.
        """
        key, moment = model_key(name), now()

        async def work(session: Session) -> pb.ModelVersion:
            counter = await self._db.counters.find_one_and_update(
                {"_id": key},
                {"$inc": {"last": 1}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=session,
            )
            assert counter is not None
            version = pb.ModelVersion()
            version.CopyFrom(ticket.spec)
            version.MergeFrom(
                pb.ModelVersion(sha256=sha256, size_bytes=size, creator=ticket.creator)
            )
            version.version, version.name = (
                counter["last"],
                f"{name.parent}/versions/{counter['last']}",
            )
            version.create_time.FromDatetime(moment)
            await self._tickets.close(ticket.id, token, version.version, session)
            await self._put_newest(name, version, moment, session)
            await self._db.versions.insert_one(
                documents.version_document(version, key, token, ticket.id), session=session
            )
            await self._db.files.insert_one(
                documents.file_document(version, token, CHUNK_BYTES), session=session
            )
            facts = {"version": version.version, "sha256": sha256, "format": version.format}
            await self._changes.note(session, topology.VERSION_CREATED, version.name, **facts)
            return version

        return await self._changes.make(work)

    async def delete_version(self, name: ModelName, version: int) -> str:
        """Removes a version, and the model with its last one; returns the file that held its
        artifact.

        Raises VersionNotFound or ModelNotFound; NotReady while an alias points to it.
        """
        key = model_key(name)

        async def work(session: Session) -> str:
            model = await self.record(name, session)
            gone = await self._db.versions.find_one_and_delete(
                {"_id": version_key(key, version)}, session=session
            )
            if gone is None:
                raise _no_version(name, version)
            aliases = sorted(
                alias for alias, kept in model["aliases"].items() if kept["version"] == version
            )
            if aliases:
                raise NotReady(
                    f"version {version} is what {', '.join(repr(alias) for alias in aliases)}"
                    " points to; move or delete the alias first",
                    version=version,
                    aliases=",".join(aliases),
                )
            await self._db.files.delete_one({"_id": gone["file"]}, session=session)
            await self._changes.note(
                session,
                topology.VERSION_DELETED,
                f"{name.parent}/versions/{version}",
                version=version,
            )
            await self._put_remaining(name, session)
            return str(gone["file"])

        return await self._changes.make(work)

    async def record(self, name: ModelName, session: Session | None = None) -> Document:
        """The model's document. Raises ModelNotFound."""
        async with _errors(session):
            found = await self._db.models.find_one(
                {"_id": {"$eq": model_key(name)}}, session=session
            )
        if found is None:
            raise _no_model(name)
        return found

    async def require_version(
        self, name: ModelName, version: int, session: Session | None = None
    ) -> Document:
        """The version's document. Raises VersionNotFound or ModelNotFound."""
        key = version_key(model_key(name), version)
        async with _errors(session):
            found = await self._db.versions.find_one({"_id": {"$eq": key}}, session=session)
        if found is None:
            await self.record(name, session)
            raise _no_version(name, version)
        return found

    async def _put_newest(
        self, name: ModelName, version: pb.ModelVersion, moment: datetime, session: Session
    ) -> None:
        """Writes the model's document for its new newest version; with its first one the model
        comes to be.
        """
        before = await self._db.models.find_one_and_update(
            {"_id": {"$eq": model_key(name)}},
            {
                "$set": {**documents.newest(version), "updated": moment},
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
            # Written, not only read, so that the bucket cannot be deleted at the same moment.
            result = await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": 1}}, session=session
            )
            if not result.matched_count:
                raise BucketNotFound(
                    f"there is no bucket '{name.bucket}'; create it first", bucket=name.bucket
                )

    async def _put_remaining(self, name: ModelName, session: Session) -> None:
        """Writes the model's document for the newest version left, or removes it when none is."""
        key, moment = model_key(name), now()
        left = await self._db.versions.find_one(
            {"_id": children(key)}, sort=[("_id", DESCENDING)], session=session
        )
        if left is None:
            await self._db.models.delete_one({"_id": key}, session=session)
            await self._db.buckets.update_one(
                {"_id": name.bucket}, {"$inc": {"models": -1}}, session=session
            )
            await self._changes.note(session, topology.MODEL_DELETED, name.parent)
            return
        newest = documents.newest(documents.to_version(left))
        change = {"$set": {**newest, "updated": moment}, "$inc": {"versions": -1}}
        await self._db.models.update_one({"_id": key}, change, session=session)


def _errors(session: Session | None) -> AbstractAsyncContextManager[None]:
    """Outside of a transaction the driver's errors become ours; within, the driver itself retries
    by them.
    """
    return errors() if session is None else nullcontext()


def _no_model(name: ModelName) -> ModelNotFound:
    return ModelNotFound(
        f"there is no model '{name.model}' in bucket '{name.bucket}'",
        model=name.model,
        bucket=name.bucket,
    )


def _no_version(name: ModelName, version: int) -> VersionNotFound:
    return VersionNotFound(
        f"model '{name.model}' has no version {version}", model=name.model, version=version
    )
