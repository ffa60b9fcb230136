"""The repository's database: its collections, and artifacts in GridFS, written and read with
constant memory.

The layout is GridFS's own (`fs.files`, `fs.chunks`), so that any of its tools reads them. The
writing is ours: the driver's GridFS writer gathers 48 MB before it sends any, and waits for each
send; this one sends 4 MiB at a time and gathers the next meanwhile. A file's record is inserted by
the transaction that makes its version; chunks without it are nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from pymongo import ASCENDING, AsyncMongoClient, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import CollectionInvalid

from services.chassis.mongo import Document, errors, in_transaction
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import Corrupt
from stellwerk.wire.names import DEFAULT_BUCKET

T = TypeVar("T")
Session = AsyncClientSession

CHUNK_BYTES = 1024 * 1024
# Measured on 200 MB: two sends of 4 MiB under way while a third is gathered are as fast as more,
# and 1.3 to 1.6 times one by one.
_BATCH_CHUNKS = 4
_SENDS_UNDER_WAY = 2
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
    """The time to the millisecond, as the database keeps it: what is answered at once equals what
    is read later.
    """
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Database:
    """The collections of the repository."""

    def __init__(self, client: AsyncMongoClient[Document], name: str) -> None:
        self.client = client
        database = self._database = client[name]
        self.buckets, self.models, self.versions = (
            database.buckets,
            database.models,
            database.versions,
        )
        self.uploads, self.outbox, self.counters = (
            database.uploads,
            database.outbox,
            database.counters,
        )
        self.files, self.chunks = database["fs.files"], database["fs.chunks"]

    async def prepare(self) -> None:
        """Makes collections, indexes and the default bucket, whatever of them is already there."""
        existing = set(await self._database.list_collection_names())
        for name in _COLLECTIONS:
            if name not in existing:
                try:
                    await self._database.create_collection(name)
                except CollectionInvalid:
                    continue  # another process was faster
        await self.chunks.create_index([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)
        await self.files.create_index([("filename", ASCENDING), ("uploadDate", ASCENDING)])
        await self.uploads.create_index([("creator", ASCENDING), ("state", ASCENDING)])
        await self.uploads.create_index([("file", ASCENDING)])
        await self.ensure_default_bucket()

    async def ensure_default_bucket(self) -> None:
        """The default bucket always exists."""
        fresh = {
            "description": "where models go that name no bucket",
            "creator": "services/repository",
            "models": 0,
        }
        await self.buckets.update_one(
            {"_id": DEFAULT_BUCKET}, {"$setOnInsert": {**fresh, "created": now()}}, upsert=True
        )


class ArtifactWriter:
    """Writes the chunks of one file, in order; what it wrote is nobody's until the file's record is
    inserted.
    """

    def __init__(self, database: Database, file: str) -> None:
        self._chunks, self._file = database.chunks, file
        self._gathered: list[Document] = []
        self._under_way: list[asyncio.Task[None]] = []
        self._count = 0

    async def write(self, chunk: bytes) -> None:
        """Takes the next chunk: CHUNK_BYTES of them, the last one any number. Raises what an
        earlier send met.
        """
        self._gathered.append({"files_id": self._file, "n": self._count, "data": chunk})
        self._count += 1
        if len(self._gathered) >= _BATCH_CHUNKS:
            await self._send()

    async def flush(self) -> None:
        """Returns when everything taken is durable."""
        await self._send()
        while self._under_way:
            await self._under_way[0]
            self._under_way.pop(0)

    async def _send(self) -> None:
        if len(self._under_way) >= _SENDS_UNDER_WAY:
            await self._under_way[0]
            self._under_way.pop(0)
        if self._gathered:
            batch, self._gathered = self._gathered, []
            self._under_way.append(asyncio.create_task(self._insert(batch)))

    async def _insert(self, batch: list[Document]) -> None:
        async with errors():
            await self._chunks.insert_many(batch, ordered=False)

    async def remove(self) -> None:
        """Takes back everything written. Sends under way end first, so that none comes after."""
        self._gathered = []
        await asyncio.gather(*self._under_way, return_exceptions=True)
        async with errors():
            await self._chunks.delete_many({"files_id": self._file})


class Artifacts:
    """Artifacts by the id of their file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def writer(self, file: str) -> ArtifactWriter:
        """Writes a new file."""
        return ArtifactWriter(self._database, file)

    async def read(self, file: str) -> AsyncGenerator[bytes, None]:
        """The chunks of a file, the next ones fetched while one is used. Raises Corrupt where one
        is missing.
        """
        cursor = self._database.chunks.find(
            {"files_id": file},
            {"_id": 0, "n": 1, "data": 1},
            sort=[("n", ASCENDING)],
            batch_size=_BATCH_CHUNKS,
        )
        async with cursor:
            following = asyncio.ensure_future(_next(cursor))
            try:
                for expected in itertools.count():
                    chunk = await following
                    if chunk is None:
                        return
                    if chunk["n"] != expected:
                        raise Corrupt(
                            "a part of the stored artifact is missing; store the model anew"
                        )
                    following = asyncio.ensure_future(_next(cursor))
                    yield chunk["data"]
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def remove(self, file: str) -> None:
        """Removes the chunks of a file whose record is gone."""
        async with errors():
            await self._database.chunks.delete_many({"files_id": file})

    async def remove_orphans(self) -> int:
        """Removes chunks that belong neither to a file nor to an upload; returns to how many files
        they belonged.

        An upload is recorded before its first chunk and becomes a file in one step; so who is in
        neither collection, asked in this order, is in neither for good.
        """
        removed = 0
        async with errors():
            # The sort lets the server step through the index from file to file instead of reading
            # every entry.
            grouped = await self._database.chunks.aggregate(
                [
                    {"$sort": {"files_id": 1, "n": 1}},
                    {"$group": {"_id": "$files_id", "n": {"$first": "$n"}}},
                ]
            )
            async for group in grouped:
                if await self._database.uploads.find_one(
                    {"file": {"$eq": group["_id"]}}, {"_id": 1}
                ):
                    continue
                if await self._database.files.find_one({"_id": {"$eq": group["_id"]}}, {"_id": 1}):
                    continue
                await self._database.chunks.delete_many({"files_id": {"$eq": group["_id"]}})
                removed += 1
        return removed


async def _next(cursor: AsyncCursor[Document]) -> Document | None:
    async with errors():
        return await anext(cursor, None)


# How long a change waits for the news of it to go out.
TELL_SECONDS = 0.25


class Changes:
    """Transactions and the events that tell of them: both happen or none, and events keep the order
    of commits.
    """

    def __init__(self, database: Database) -> None:
        self._client, self._outbox, self._counters = (
            database.client,
            database.outbox,
            database.counters,
        )
        # All transactions draw from the counter of events: within a process they take turns instead
        # of colliding.
        self._turn = asyncio.Lock()
        # Set whenever there may be something to publish.
        self.happened = asyncio.Event()
        self._noted = self._told = 0
        self._telling = asyncio.Condition()

    async def make(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Runs `work` in one transaction; it may run again after a collision with another process.

        Returns once its event is published, so that who then predicts gets what was just stored;
        waits a moment at most, since the change is made whether or not anyone can be told.
        """
        async with self._turn:
            result = await in_transaction(self._client, work)
            place = self._noted
        self.happened.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS), self._telling:
                await self._telling.wait_for(lambda: self._told >= place)
        return result

    async def note(self, session: Session, kind: str, resource: str, **facts: object) -> None:
        """Adds an event to the transaction."""
        counter = await self._counters.find_one_and_update(
            {"_id": "outbox"},
            {"$inc": {"last": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        assert counter is not None
        event = event_pb2.Event(id=uuid.uuid4().hex, kind=kind, resource=resource)
        event.time.FromDatetime(now())
        event.attributes.update({key: str(value) for key, value in facts.items()})
        self._noted = counter["last"]
        await self._outbox.insert_one(
            {"_id": counter["last"], "event": event.SerializeToString()}, session=session
        )

    async def pending(self, limit: int) -> list[tuple[int, event_pb2.Event]]:
        """The oldest events not yet published, with their places in the order."""
        async with errors():
            found = await self._outbox.find({}, sort=[("_id", ASCENDING)], limit=limit).to_list()
        return [
            (document["_id"], event_pb2.Event.FromString(document["event"])) for document in found
        ]

    async def published(self, place: int) -> None:
        """Forgets all events up to this place."""
        async with errors():
            await self._outbox.delete_many({"_id": {"$lte": place}})
        async with self._telling:
            self._told = place
            self._telling.notify_all()
