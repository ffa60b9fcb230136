"""The audit ledger's entries in MongoDB: `_id` is the number, so no number is ever given twice."""

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
_DUPLICATE = 11000
_LOT = 1000
_HEAD = "head"


class MongoEntries:
    """Entries in `ledger`, the noted head in `ledger_head`."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        # What another writer has just added must be seen at once; the unique number settles who was
        # first anyway.
        self._entries = database.get_collection("ledger", read_concern=ReadConcern("local"))
        self._heads = database["ledger_head"]

    async def prepare(self) -> None:
        """Creates the indexes."""
        async with errors():
            await self._entries.create_index([("principal", 1), ("_id", -1)])
            await self._entries.create_index([("resource", 1), ("_id", -1)])

    async def insert(self, entries: Sequence[Entry]) -> None:
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
        async with errors():
            # Something else than a number is not of our making; `scan` shows it.
            document = await self._entries.find_one(
                {"_id": {"$type": ["int", "long"]}}, sort=[("_id", -1)]
            )
        return Head(document["_id"], document["hash"]) if document else Head()

    async def head(self) -> Head:
        async with errors():
            document = await self._heads.find_one({"_id": _HEAD})
        return Head(document["sequence"], document["hash"]) if document else Head()

    async def note_head(self, head: Head) -> None:
        behind = {"_id": _HEAD, "sequence": {"$lt": head.sequence}}
        values = {"sequence": head.sequence, "hash": head.hash}
        async with errors():
            try:
                await self._heads.update_one(behind, {"$set": values}, upsert=True)
            except DuplicateKeyError:
                # Another writer has noted a later head already.
                return

    async def scan(self) -> AsyncIterator[list[Entry]]:
        async with errors(), self._entries.find(sort=[("_id", 1)], batch_size=_LOT) as cursor:
            while documents := await cursor.to_list(_LOT):
                yield [_entry(document) for document in documents]

    async def page(self, before: int, limit: int, principal: str, resource: str) -> list[Entry]:
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
    """The entry as it was found, whatever it holds: it is the chain that says whether it is
    right.
    """
    values = {name: document.get(name) for name in _FIELDS}
    if set(document) != _KEYS:
        values["hash"] = "a field was added or taken away"
    return Entry(sequence=document["_id"], **values)  # type: ignore[arg-type]
