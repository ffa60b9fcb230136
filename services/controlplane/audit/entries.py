"""Stores the audit ledger's entries in MongoDB; an entry's `_id` is its number, so that no
number is accepted twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from services.chassis.mongo import Document, errors
from services.controlplane.audit.chain import Entry, Head
from services.controlplane.audit.ledger import SequenceTaken

_FIELDS = [field.name for field in fields(Entry) if field.name != "sequence"]
_KEYS = {"_id", *_FIELDS}
# MongoDB's error code for a duplicate key.
_DUPLICATE = 11000
# Entries read from the database at a time during a verification; bounds its memory.
_LOT = 1000
_HEAD = "head"


class MongoEntryStore:
    """Keeps entries in the collection `ledger` and the noted head in `ledger_head`; implements
    EntryStore.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        # "local", so that entries another writer has just added are seen at once; the unique number
        # decides which writer was first.
        self._entries = database.get_collection("ledger", read_concern=ReadConcern("local"))
        self._heads = database["ledger_head"]

    async def prepare(self) -> None:
        """Creates the indexes."""
        async with errors():
            await self._entries.create_index([("principal", 1), ("_id", -1)])
            await self._entries.create_index([("resource", 1), ("_id", -1)])

    async def insert(self, entries: Sequence[Entry]) -> None:
        """Stores the entries; see EntryStore."""
        documents = [_document(entry) for entry in entries]
        async with errors():
            try:
                await self._entries.insert_many(documents, ordered=True)
            except BulkWriteError as exc:
                failures = exc.details.get("writeErrors", [])
                if failures and failures[0].get("code") == _DUPLICATE:
                    raise SequenceTaken(int(failures[0]["index"])) from exc
                raise

    async def tail(self) -> Head:
        """Returns the last entry's number and hash; see EntryStore."""
        async with errors():
            # An id that is no number was planted; `scan` shows it to the verification.
            document = await self._entries.find_one(
                {"_id": {"$type": ["int", "long"]}}, sort=[("_id", -1)]
            )
        return Head(document["_id"], document["hash"]) if document else Head()

    async def head(self) -> Head:
        """Returns the noted head; see EntryStore."""
        async with errors():
            document = await self._heads.find_one({"_id": _HEAD})
        return Head(document["sequence"], document["hash"]) if document else Head()

    async def note_head(self, head: Head) -> None:
        """Notes the head unless a later one is noted; see EntryStore."""
        behind = {"_id": _HEAD, "sequence": {"$lt": head.sequence}}
        values = {"sequence": head.sequence, "hash": head.hash}
        async with errors():
            try:
                await self._heads.update_one(behind, {"$set": values}, upsert=True)
            except DuplicateKeyError:
                # A head is noted: a later one, or the first one, inserted at this moment, which may
                # be earlier.
                await self._heads.update_one(behind, {"$set": values})

    async def scan(self) -> AsyncIterator[list[Entry]]:
        """Yields all entries in order; see EntryStore."""
        async with errors(), self._entries.find(sort=[("_id", 1)], batch_size=_LOT) as cursor:
            while documents := await cursor.to_list(_LOT):
                yield [_entry(document) for document in documents]

    async def page(self, before: int, limit: int, principal: str, resource: str) -> list[Entry]:
        """Returns entries newest first; see EntryStore."""
        wanted: dict[str, Any] = {"_id": {"$lt": before}} if before else {}
        wanted |= {
            key: value for key, value in (("principal", principal), ("resource", resource)) if value
        }
        async with errors():
            documents = await self._entries.find(wanted, sort=[("_id", -1)], limit=limit).to_list()
        return [_entry(document) for document in documents]


def _document(entry: Entry) -> Document:
    return {"_id": entry.sequence, **{name: getattr(entry, name) for name in _FIELDS}}


def _entry(document: Document) -> Entry:
    """Reads an entry from its document, whatever the fields hold: the chain's verification decides
    whether they are right.
    """
    values = {name: document.get(name) for name in _FIELDS}
    if set(document) != _KEYS:
        values["hash"] = "a field was added or taken away"
    return Entry(sequence=document["_id"], **values)  # type: ignore[arg-type]
