"""Stores the bytes of artifacts as GridFS files, written and read with constant memory.

The layout is GridFS's own; the writing is ours. PyMongo's GridFS writer gathers 48 MB before it
sends and waits for each send; this one sends 4 MiB at a time and gathers the next meanwhile. A
file's record is inserted by the transaction that creates its version; chunks without a record or an
upload are orphans.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from pymongo import ASCENDING
from pymongo.asynchronous.cursor import AsyncCursor

from services.chassis import background
from services.chassis.mongo import Document, errors
from services.repository.metrics import RepositoryMetrics
from services.repository.mongo import Database
from stellwerk.wire.errors import Corrupt, Overloaded

# 4 chunks (4 MiB) an insert, 2 inserts in flight while a third is gathered: 1.3 to 1.6 times the
# throughput of one insert at a time; more in flight gained nothing. Measured on an artifact of
# 200 MB, 2026-11.
_BATCH_CHUNKS = 4
_INSERTS_IN_FLIGHT = 2


class ArtifactWriter:
    """Writes the chunks of one file in order."""

    def __init__(self, database: Database, file: str) -> None:
        self._chunks = database.chunks
        self._file = file
        self._gathered: list[Document] = []
        self._inserts: list[asyncio.Task[None]] = []
        self._count = 0

    async def write(self, chunk: bytes) -> None:
        """Takes the next chunk, of CHUNK_BYTES unless it is the last. Raises the error of an
        earlier insert.
        """
        self._gathered.append({"files_id": self._file, "n": self._count, "data": chunk})
        self._count += 1
        if len(self._gathered) >= _BATCH_CHUNKS:
            await self._send()

    async def flush(self) -> None:
        """Returns when every chunk taken is durable. Raises the error of an insert."""
        await self._send()
        while self._inserts:
            await self._await_oldest()

    async def settle(self) -> None:
        """Forgets what was not sent and returns when the inserts in flight have ended."""
        self._gathered = []
        await asyncio.gather(*self._inserts, return_exceptions=True)
        # Or an insert's error would keep its traceback, that this writer, and that the insert.
        self._inserts.clear()

    async def remove(self) -> None:
        """Removes every chunk written, once `settle` has returned."""
        async with errors():
            await self._chunks.delete_many({"files_id": self._file})

    async def _send(self) -> None:
        if len(self._inserts) >= _INSERTS_IN_FLIGHT:
            await self._await_oldest()
        if self._gathered:
            batch = self._gathered
            self._gathered = []
            self._inserts.append(asyncio.create_task(self._insert(batch)))

    async def _await_oldest(self) -> None:
        # A cancelled wait leaves the insert under way and in the list: `remove` waits for it.
        await asyncio.wait(self._inserts[:1])
        self._inserts.pop(0).result()

    async def _insert(self, batch: list[Document]) -> None:
        async with errors():
            await self._chunks.insert_many(batch, ordered=False)


class ArtifactStore:
    """Writes, reads and removes artifacts by the id of their GridFS file. Lets `max_transfers`
    artifacts be received and sent at a time, which bounds the memory they take.
    """

    def __init__(self, database: Database, max_transfers: int, metrics: RepositoryMetrics) -> None:
        self._database = database
        self._max_transfers = max_transfers
        self._metrics = metrics
        self._transfers = 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """Counts one transfer for the `with` block. Raises Overloaded at `max_transfers`."""
        if self._transfers >= self._max_transfers:
            raise Overloaded(
                "too many artifacts are being transferred; try again in a moment",
                limit=self._max_transfers,
            )
        self._transfers += 1
        self._metrics.transfers.set(self._transfers)
        try:
            yield
        finally:
            self._transfers -= 1
            self._metrics.transfers.set(self._transfers)

    @contextmanager
    def writer(self, file: str) -> Iterator[ArtifactWriter]:
        """Yields a writer of a new file, which counts as a transfer. Raises Overloaded as
        `transfer` does.
        """
        with self.transfer():
            yield ArtifactWriter(self._database, file)

    async def read(self, file: str) -> AsyncGenerator[bytes, None]:
        """Yields the chunks of a file in order, fetching the next one meanwhile. Raises Corrupt
        where a chunk is missing.
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
                await background.end(following)

    async def remove(self, file: str) -> None:
        """Removes the chunks of a file whose record is deleted."""
        async with errors():
            await self._database.chunks.delete_many({"files_id": file})

    async def remove_orphans(self) -> int:
        """Removes the chunks of files that neither a record nor an upload names; returns the number
        of these files.

        An upload is recorded before its first chunk and becomes a record in one transaction. So a
        file that is not found in uploads and then not in records will never be in either.
        """
        removed = 0
        async with errors():
            # Sorted by the index, so that the server steps from file to file instead of reading
            # every chunk.
            grouped = await self._database.chunks.aggregate(
                [
                    {"$sort": {"files_id": 1, "n": 1}},
                    {"$group": {"_id": "$files_id", "n": {"$first": "$n"}}},
                ]
            )
            async for group in grouped:
                file = group["_id"]
                if await self._database.uploads.find_one({"file": {"$eq": file}}, {"_id": 1}):
                    continue
                if await self._database.files.find_one({"_id": {"$eq": file}}, {"_id": 1}):
                    continue
                await self._database.chunks.delete_many({"files_id": {"$eq": file}})
                removed += 1
        return removed


async def _next(cursor: AsyncCursor[Document]) -> Document | None:
    async with errors():
        return await anext(cursor, None)
