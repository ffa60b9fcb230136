"""The audit ledger in a real MongoDB: concurrent writers, tampering, crashes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from services.chassis.mongo import Document, connect
from services.controlplane import messages
from services.controlplane.audit.chain import Head
from services.controlplane.audit.entries import MongoEntryStore
from services.controlplane.audit.ledger import AuditLedger
from stellwerk.controlplane.v1 import audit_service_pb2 as audit


@dataclass
class _Ledgers:
    client: AsyncMongoClient[Document]
    name: str
    entries: MongoEntryStore
    opened: list[AuditLedger] = field(default_factory=list)

    def open(self) -> AuditLedger:
        """Returns a ledger as a process of its own has it."""
        self.opened.append(AuditLedger(self.entries, time.time))
        return self.opened[-1]

    @property
    def database(self) -> Any:
        return self.client[self.name]


@pytest.fixture
async def ledgers(mongod: str) -> AsyncIterator[_Ledgers]:
    client = connect(mongod, "test")
    name = f"cp_{uuid.uuid4().hex[:12]}"
    ledgers = _Ledgers(client, name, MongoEntryStore(client[name]))
    await ledgers.entries.prepare()
    yield ledgers
    for ledger in ledgers.opened:
        await ledger.close()
    await client.drop_database(name)
    await client.close()


def _record(number: int = 0) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_INTENT,
        principal=f"principals/p{number % 3}",
        method="/stellwerk.x/Y",
        resource=f"buckets/b{number % 2}",
        service="router",
    )


async def _fill(ledgers: _Ledgers, count: int) -> AuditLedger:
    ledger = ledgers.open()
    await ledger.append([_record(number) for number in range(count)])
    await ledger.close()
    return ledger


async def test_two_hundred_concurrent_appends_of_two_writers_give_one_unbroken_chain(
    ledgers: _Ledgers,
) -> None:
    writers = [ledgers.open() for _ in range(2)]

    numbers = await asyncio.gather(
        *(writers[i % 2].append_counted([_record(i)]) for i in range(200))
    )

    assert sorted(numbers) == list(range(1, 201))
    await asyncio.gather(*(ledger.close() for ledger in writers))
    finding = await ledgers.open().verify()
    assert finding.intact and finding.checked == 200 and finding.last.sequence == 200
    assert (await ledgers.entries.head()).sequence == 200


async def test_of_heads_that_are_noted_at_once_the_last_one_stays(ledgers: _Ledgers) -> None:
    """The first head is inserted, so that a later one may find it there and one that is earlier."""
    for _ in range(30):
        await ledgers.database["ledger_head"].delete_many({})
        heads = [Head(sequence, "h") for sequence in (1, 2, 3, 4)]
        await asyncio.gather(*(ledgers.entries.note_head(head) for head in heads))

        assert (await ledgers.entries.head()).sequence == 4


async def _edit(ledger: Any, heads: Any) -> None:
    await ledger.update_one({"_id": 4}, {"$set": {"principal": "principals/nobody"}})


async def _add_field(ledger: Any, heads: Any) -> None:
    await ledger.update_one({"_id": 4}, {"$set": {"note": "x"}})


async def _take_field(ledger: Any, heads: Any) -> None:
    await ledger.update_one({"_id": 4}, {"$unset": {"peer": 1}})


async def _change_type(ledger: Any, heads: Any) -> None:
    await ledger.update_one({"_id": 4}, {"$set": {"count": 1.0}})


async def _delete(ledger: Any, heads: Any) -> None:
    await ledger.delete_one({"_id": 4})


async def _reorder(ledger: Any, heads: Any) -> None:
    four, six = await ledger.find_one({"_id": 4}), await ledger.find_one({"_id": 6})
    await ledger.replace_one({"_id": 4}, {**six, "_id": 4})
    await ledger.replace_one({"_id": 6}, {**four, "_id": 6})


async def _insert(ledger: Any, heads: Any) -> None:
    four = await ledger.find_one({"_id": 4})
    await ledger.insert_one({**four, "_id": 3.5})


async def _truncate(ledger: Any, heads: Any) -> None:
    await ledger.delete_many({"_id": {"$gte": 4}})


async def _foreign_id(ledger: Any, heads: Any) -> None:
    four = await ledger.find_one({"_id": 4})
    await ledger.delete_one({"_id": 4})
    await ledger.insert_one({**four, "_id": 4.5, "hash": None})


async def _text_id(ledger: Any, heads: Any) -> None:
    four = await ledger.find_one({"_id": 4})
    await ledger.delete_one({"_id": 4})
    await ledger.insert_one({**four, "_id": "4"})


@pytest.mark.parametrize(
    "tamper",
    [
        _text_id,
        _edit,
        _add_field,
        _take_field,
        _change_type,
        _delete,
        _reorder,
        _insert,
        _truncate,
        _foreign_id,
    ],
)
async def test_tampering_in_the_database_is_named(ledgers: _Ledgers, tamper: Any) -> None:
    await _fill(ledgers, 8)
    await tamper(ledgers.database["ledger"], ledgers.database["ledger_head"])

    finding = await ledgers.open().verify()

    assert not finding.intact and finding.first_bad_sequence == 4 and finding.problem
    # What was tampered with can still be looked at and added to.
    assert all(messages.record(entry).kind for entry in await ledgers.open().page(0, 20))
    await ledgers.open().append([_record()])
    assert (await ledgers.open().verify()).first_bad_sequence == 4


async def test_a_head_moved_back_with_the_end_cut_off_shows_against_a_kept_hash(
    ledgers: _Ledgers,
) -> None:
    ledger = await _fill(ledgers, 8)
    kept = (await ledger.verify()).last
    await _truncate(ledgers.database["ledger"], None)
    await ledgers.database["ledger_head"].delete_many({})

    assert (await ledgers.open().verify()).intact
    assert (await ledgers.open().verify(kept)).first_bad_sequence == 4


async def test_records_are_listed_newest_first_and_filtered_literally(ledgers: _Ledgers) -> None:
    await _fill(ledgers, 9)
    ledger = ledgers.open()

    assert [entry.sequence for entry in await ledger.page(0, 4)] == [9, 8, 7, 6]
    assert [entry.sequence for entry in await ledger.page(6, 4)] == [5, 4, 3, 2]
    assert [entry.sequence for entry in await ledger.page(0, 9, principal="principals/p0")] == [
        7,
        4,
        1,
    ]
    assert [entry.sequence for entry in await ledger.page(0, 9, "principals/p0", "buckets/b0")] == [
        7,
        1,
    ]
    assert (
        await ledger.page(0, 9, principal=".*")
        == []
        == await ledger.page(0, 9, resource='{"$ne": ""}')
    )


async def test_an_interrupted_batch_leaves_a_chain_that_goes_on(ledgers: _Ledgers) -> None:
    await _fill(ledgers, 3)
    # As after a kill between the entries and the head: the head lags behind.
    head = await ledgers.entries.head()
    await ledgers.database["ledger_head"].update_one({"_id": "head"}, {"$set": {"sequence": 1}})
    first = await ledgers.database["ledger"].find_one({"_id": 1})
    await ledgers.database["ledger_head"].update_one(
        {"_id": "head"}, {"$set": {"hash": first["hash"]}}
    )

    ledger = ledgers.open()

    assert (await ledger.verify()).intact
    assert await ledger.append_counted([_record()]) == head.sequence + 1
    await ledger.close()
    assert (await ledger.verify()).intact and (await ledgers.entries.head()).sequence == 4
