"""Names the repository's collections in MongoDB and creates them with their indexes."""

from __future__ import annotations

from datetime import UTC, datetime

from pymongo import ASCENDING, AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import CollectionInvalid

from services.chassis.mongo import Document
from stellwerk.wire.names import DEFAULT_BUCKET

Session = AsyncClientSession

# Bytes of one GridFS chunk, the last one of a file excepted. GridFS's default of 255 KiB takes four
# times as many documents for the same artifact.
CHUNK_BYTES = 1024 * 1024
# Created before their first use: within a transaction MongoDB creates no collection reliably.
_COLLECTIONS = (
    "buckets",
    "models",
    "versions",
    "uploads",
    "outbox",
    "counters",
    "fs.files",
    "fs.chunks",
)


def now() -> datetime:
    """Returns the time in UTC, cut to milliseconds as MongoDB keeps it: the answer to a change then
    equals what later reads return.
    """
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Database:
    """Holds the repository's collections."""

    def __init__(self, client: AsyncMongoClient[Document], name: str) -> None:
        self.client = client
        database = client[name]
        self._database = database
        self.buckets = database.buckets
        self.models = database.models
        self.versions = database.versions
        self.uploads = database.uploads
        self.outbox = database.outbox
        self.counters = database.counters
        # GridFS's own names and layout, so that its tools can read the artifacts.
        self.files = database["fs.files"]
        self.chunks = database["fs.chunks"]

    async def prepare(self) -> None:
        """Creates the collections, indexes and the default bucket that do not exist yet."""
        existing = set(await self._database.list_collection_names())
        for name in _COLLECTIONS:
            if name not in existing:
                try:
                    await self._database.create_collection(name)
                except CollectionInvalid:
                    continue  # another process created it since the names were listed
        await self.chunks.create_index([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)
        await self.files.create_index([("filename", ASCENDING), ("uploadDate", ASCENDING)])
        await self.uploads.create_index([("creator", ASCENDING), ("state", ASCENDING)])
        await self.uploads.create_index([("file", ASCENDING)])
        await self.ensure_default_bucket()

    async def ensure_default_bucket(self) -> None:
        """Creates the default bucket if it does not exist."""
        fresh = {
            "description": "where models go that name no bucket",
            "creator": "services/repository",
            "models": 0,
        }
        await self.buckets.update_one(
            {"_id": DEFAULT_BUCKET}, {"$setOnInsert": {**fresh, "created": now()}}, upsert=True
        )
