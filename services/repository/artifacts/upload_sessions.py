"""Records of uploads: open → streaming → committed, each step taken by exactly one caller.

The token of a stream fences it and is the id of the file it writes. A stream renews its lease by
the database's clock; who stopped doing so is taken for dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.chassis.mongo import Document, errors
from services.repository.mongo import Database, Session
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import Conflict, UploadNotFound

OPEN, STREAMING, COMMITTED = "open", "streaming", "committed"
# Longer than any pause of a living process; a dead one is noticed after it.
LEASE_SECONDS = 30.0
# How long the answer to a repeated upload is kept.
COMMITTED_SECONDS = 24 * 3600.0


def _ahead(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(seconds * 1000)]}


@dataclass(frozen=True, slots=True)
class Ticket:
    """One upload as it is recorded."""

    id: str
    model: str
    creator: str
    state: str
    spec: pb.ModelVersion
    version: int

    @classmethod
    def of(cls, document: Document) -> Ticket:
        """The ticket kept in this document."""
        return cls(
            id=document["_id"],
            model=document["model"],
            creator=document["creator"],
            state=document["state"],
            spec=pb.ModelVersion.FromString(document["spec"]),
            version=document["version"],
        )


class Tickets:
    """The records of uploads."""

    def __init__(self, database: Database) -> None:
        self._uploads = database.uploads

    async def open(self, ticket: Ticket, now: datetime, seconds: float) -> datetime:
        """Records a new upload; returns when it lapses."""
        expires = now + timedelta(seconds=seconds)
        async with errors():
            await self._uploads.insert_one(
                {
                    "_id": ticket.id,
                    "model": ticket.model,
                    "creator": ticket.creator,
                    "state": OPEN,
                    "spec": ticket.spec.SerializeToString(),
                    "version": 0,
                    "file": "",
                    "expires": expires,
                }
            )
        return expires

    async def count_open(self, creator: str, limit: int) -> int:
        """How many unfinished uploads a caller has, counted up to `limit`."""
        async with errors():
            return await self._uploads.count_documents(
                {"creator": {"$eq": creator}, "state": {"$in": [OPEN, STREAMING]}}, limit=limit
            )

    async def get(self, upload: str, model: str) -> Ticket:
        """The upload of this id and model, unless it has lapsed. Raises UploadNotFound."""
        async with errors():
            found = await self._uploads.find_one(
                {
                    "_id": {"$eq": upload},
                    "model": {"$eq": model},
                    "$or": [{"state": {"$ne": OPEN}}, {"$expr": {"$gt": ["$expires", "$$NOW"]}}],
                }
            )
        if found is None:
            raise UploadNotFound(
                "there is no such upload, or it has lapsed; open a new one", upload=upload
            )
        return Ticket.of(found)

    async def claim(self, upload: str, token: str) -> None:
        """Makes the stream with this token the only one. Raises Conflict if there is, or was,
        another.
        """
        async with errors():
            result = await self._uploads.update_one(
                {"_id": {"$eq": upload}, "state": OPEN},
                [
                    {
                        "$set": {
                            "state": STREAMING,
                            "file": {"$literal": token},
                            "lease": _ahead(LEASE_SECONDS),
                        }
                    }
                ],
            )
        if not result.matched_count:
            raise Conflict(
                "this upload is being streamed already; open one of your own", upload=upload
            )

    async def renew(self, upload: str, token: str) -> bool:
        """Says that the stream lives; False if it is no longer the one."""
        async with errors():
            result = await self._uploads.update_one(
                {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING},
                [{"$set": {"lease": _ahead(LEASE_SECONDS)}}],
            )
        return bool(result.matched_count)

    async def close(self, upload: str, token: str, version: int, session: Session) -> None:
        """Within the transaction that makes the version. Raises Conflict if the stream is no longer
        the one.
        """
        result = await self._uploads.update_one(
            {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING},
            [
                {
                    "$set": {
                        "state": COMMITTED,
                        "version": version,
                        "expires": _ahead(COMMITTED_SECONDS),
                    }
                }
            ],
            session=session,
        )
        if not result.matched_count:
            raise Conflict("this upload lapsed before it was whole; open a new one", upload=upload)

    async def drop(self, upload: str, token: str) -> bool:
        """Removes the record of a stream that broke off; False if there is none, or it was
        committed after all.
        """
        async with errors():
            result = await self._uploads.delete_one(
                {"_id": {"$eq": upload}, "file": {"$eq": token}, "state": STREAMING}
            )
        return bool(result.deleted_count)

    async def drop_lapsed(self) -> list[str]:
        """Removes uploads that lapsed and streams that are dead; returns the files of the
        latter.
        """
        lapsed = {"state": {"$ne": STREAMING}, "$expr": {"$lt": ["$expires", "$$NOW"]}}
        dead = {"state": STREAMING, "$expr": {"$lt": ["$lease", "$$NOW"]}}
        files: list[str] = []
        async with errors():
            await self._uploads.delete_many(lapsed)
            while document := await self._uploads.find_one_and_delete(dead):
                files.append(document["file"])
        return files
