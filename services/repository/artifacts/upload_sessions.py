"""Records uploads in MongoDB: open → streaming → committed, each step taken by exactly one stream.

The token of a stream fences the upload against other streams, and is the id of the file that the
stream writes. A stream renews its lease by the database's clock; one that stops is taken for dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.chassis import background
from services.chassis.mongo import Document, errors
from services.repository.mongo import Database, Session, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import Conflict, Overloaded, ServiceError, UploadNotFound

OPEN = "open"
STREAMING = "streaming"
COMMITTED = "committed"
# Seconds without renewal after which a stream is taken for dead; it is renewed four times as often,
# so that a pause of a living process or of the database does not end it.
LEASE_SECONDS = 30.0
# Seconds for which a repeated upload is answered with the version it became.
COMMITTED_SECONDS = 24 * 3600.0


def _seconds_from_now(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(seconds * 1000)]}


@dataclass(frozen=True, slots=True)
class UploadSession:
    """One upload: its id, the key of its model, its creator's name, its state, what the creator
    declared, and the version it became (0 before).
    """

    id: str
    model: str
    creator: str
    state: str
    spec: pb.ModelVersion
    version: int

    @classmethod
    def of(cls, document: Document) -> UploadSession:
        """Reads a session from its document."""
        return cls(
            id=document["_id"],
            model=document["model"],
            creator=document["creator"],
            state=document["state"],
            spec=pb.ModelVersion.FromString(document["spec"]),
            version=document["version"],
        )


class UploadSessions:
    """Creates, reads and advances the records of uploads. `upload` is an upload's id, `token` a
    stream's token.
    """

    def __init__(self, database: Database, log: structlog.typing.FilteringBoundLogger) -> None:
        self._uploads = database.uploads
        self._log = log

    async def open(self, session: UploadSession, seconds: float, limit: int) -> datetime:
        """Records a new upload that lapses in `seconds`; returns that time. Raises Overloaded for a
        creator with `limit` unfinished uploads.
        """
        unfinished = {"creator": {"$eq": session.creator}, "state": {"$in": [OPEN, STREAMING]}}
        expires = now() + timedelta(seconds=seconds)
        async with errors():
            if await self._uploads.count_documents(unfinished, limit=limit) >= limit:
                raise Overloaded(
                    f"you have {limit} open uploads; finish one or let it lapse", limit=limit
                )
            await self._uploads.insert_one(
                {
                    "_id": session.id,
                    "model": session.model,
                    "creator": session.creator,
                    "state": OPEN,
                    "spec": session.spec.SerializeToString(),
                    "version": 0,
                    "file": "",
                    "expires": expires,
                }
            )
        return expires

    async def get(self, upload: str, model: str) -> UploadSession:
        """Returns the upload of this id and model key. Raises UploadNotFound, also for a lapsed
        one.
        """
        async with errors():
            found = await self._uploads.find_one(
                {
                    "_id": {"$eq": upload},
                    "model": {"$eq": model},
                    "$or": [{"state": {"$ne": OPEN}}, {"$expr": {"$gt": ["$expires", "$$NOW"]}}],
                }
            )
        if found is None:
            raise upload_not_found(upload)
        return UploadSession.of(found)

    @asynccontextmanager
    async def claimed(self, upload: str, token: str) -> AsyncIterator[None]:
        """Makes an open upload the stream's, and renews its lease for the `async with` block.
        Raises Conflict if another stream claimed the upload.
        """
        # Or `drop` could find nothing and MongoDB make the claim afterwards, for nobody.
        await background.to_its_end(self._claim(upload, token))
        renewing = asyncio.create_task(self._renew(upload, token))
        try:
            yield
        finally:
            await background.end(renewing)

    async def _claim(self, upload: str, token: str) -> None:
        async with errors():
            result = await self._uploads.update_one(
                {"_id": {"$eq": upload}, "state": OPEN},
                [
                    {
                        "$set": {
                            "state": STREAMING,
                            "file": {"$literal": token},
                            "lease": _seconds_from_now(LEASE_SECONDS),
                        }
                    }
                ],
            )
        if not result.matched_count:
            raise Conflict(
                "another stream sends this upload already; open an upload of your own",
                upload=upload,
            )

    async def _renew(self, upload: str, token: str) -> None:
        """Renews the lease until cancelled; a lost upload is noticed when it is closed."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                async with errors():
                    await self._uploads.update_one(
                        {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING},
                        [{"$set": {"lease": _seconds_from_now(LEASE_SECONDS)}}],
                    )
            except ServiceError as exc:
                self._log.warning("upload_lease_not_renewed", upload=upload, reason=exc.reason)

    async def close(self, upload: str, token: str, version: int, session: Session) -> None:
        """Records, in the transaction of `session`, that the upload became this version. Raises
        Conflict if the upload is no longer the stream's.
        """
        result = await self._uploads.update_one(
            {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING},
            [
                {
                    "$set": {
                        "state": COMMITTED,
                        "version": version,
                        "expires": _seconds_from_now(COMMITTED_SECONDS),
                    }
                }
            ],
            session=session,
        )
        if not result.matched_count:
            raise Conflict(
                "this upload lapsed before it was complete; open a new one", upload=upload
            )

    async def drop(self, upload: str, token: str) -> bool:
        """Removes the upload of a stream that broke off; returns False if it was committed or
        already removed.
        """
        async with errors():
            result = await self._uploads.delete_one(
                {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING}
            )
        return bool(result.deleted_count)

    async def drop_lapsed(self) -> list[str]:
        """Removes lapsed uploads and dead streams; returns the files of the dead streams."""
        lapsed = {"state": {"$ne": STREAMING}, "$expr": {"$lt": ["$expires", "$$NOW"]}}
        dead = {"state": STREAMING, "$expr": {"$lt": ["$lease", "$$NOW"]}}
        files: list[str] = []
        async with errors():
            await self._uploads.delete_many(lapsed)
            while document := await self._uploads.find_one_and_delete(dead):
                files.append(document["file"])
        return files


def upload_not_found(upload: str) -> UploadNotFound:
    """Returns the error for an upload that does not exist, has lapsed, or is another caller's."""
    return UploadNotFound(
        "there is no such upload, or it has lapsed; open a new one", upload=upload
    )
