"""Appends: one unbroken chain, however many callers and writers there are and whatever the store
does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.controlplane.audit.chain import Entry, Head, extend, hash_of
from services.controlplane.audit.ledger import MAX_RECORDS_PER_CALL, AuditLedger, SequenceTaken
from stellwerk.controlplane.v1 import audit_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput, Overloaded, Unavailable
from tests.fakes.entries import FakeEntries


def _record(principal: str = "principals/ada", **values: object) -> pb.AuditRecord:
    return pb.AuditRecord(kind=pb.AuditRecord.KIND_INTENT, principal=principal, **values)  # type: ignore[arg-type]


def _ledger(store: FakeEntries) -> AuditLedger:
    return AuditLedger(store, lambda: 1000.5)


async def test_two_hundred_callers_make_one_chain_in_few_writes() -> None:
    store = FakeEntries()
    ledger = _ledger(store)

    numbers = await asyncio.gather(
        *(ledger.append_counted([_record(f"principals/p{i}")]) for i in range(200))
    )

    assert sorted(numbers) == list(range(1, 201))
    assert [store.entries[n].principal for n in numbers] == [f"principals/p{i}" for i in range(200)]
    assert (await ledger.verify()).checked == 200 and (await ledger.verify()).intact
    assert store.inserts <= 3


async def test_a_lone_record_waits_for_nobody() -> None:
    store = FakeEntries()

    ledger = _ledger(store)
    assert await ledger.append_counted([_record()]) == 1
    await ledger.close()

    assert store.entries[1].time_ms == 1_000_500
    assert store.noted == Head(1, store.entries[1].hash)


async def test_writers_that_race_make_one_chain() -> None:
    store = FakeEntries()
    ledgers = [_ledger(store) for _ in range(4)]

    async def write(ledger: AuditLedger) -> list[int]:
        return [await ledger.append_counted([_record(), _record()]) for _ in range(25)]

    numbers = await asyncio.gather(*map(write, ledgers))

    assert len({number for some in numbers for number in some}) == 100
    finding = await ledgers[0].verify()
    assert finding.intact and finding.checked == 200


async def test_while_the_store_is_away_appends_fail_and_afterwards_the_chain_goes_on() -> None:
    store = FakeEntries()
    ledger = _ledger(store)
    await ledger.append([_record()])
    store.away = True

    with pytest.raises(Unavailable):
        await ledger.append([_record()])
    store.away = False
    await ledger.append([_record()])

    assert (await ledger.verify()).intact and len(store.entries) == 2


async def test_a_caller_that_gives_up_while_it_waits_leaves_no_record_and_disturbs_nobody() -> None:
    store = FakeEntries()
    store.open.clear()
    ledger = _ledger(store)
    first = asyncio.create_task(ledger.append_counted([_record("principals/first")]))
    await store.entered.wait()
    impatient = asyncio.create_task(ledger.append([_record("principals/impatient")]))
    patient = asyncio.create_task(ledger.append_counted([_record("principals/patient")]))
    await asyncio.sleep(0)

    impatient.cancel()
    store.open.set()

    assert (await first, await patient) == (1, 2)
    assert [entry.principal for entry in store.entries.values()] == [
        "principals/first",
        "principals/patient",
    ]
    assert (await ledger.verify()).intact


async def test_a_caller_that_gives_up_during_its_write_breaks_no_chain() -> None:
    store = FakeEntries()
    store.open.clear()
    ledger = _ledger(store)
    impatient = asyncio.create_task(ledger.append([_record()]))
    await store.entered.wait()

    impatient.cancel()
    store.open.set()

    assert await ledger.append_counted([_record()]) == 2
    assert (await ledger.verify()).intact


async def test_a_new_process_goes_on_from_what_is_stored() -> None:
    store = FakeEntries()
    await _ledger(store).append([_record(), _record()])

    assert await _ledger(store).append_counted([_record()]) == 3
    assert (await _ledger(store).verify()).intact


async def test_a_crash_before_the_head_is_noted_leaves_a_whole_chain() -> None:
    store = FakeEntries()
    await _ledger(store).append([_record(), _record()])
    store.noted = Head(1, store.entries[1].hash)

    assert (await _ledger(store).verify()).intact


async def test_a_cut_off_end_shows_against_the_noted_head_and_against_memory() -> None:
    store = FakeEntries()
    ledger = _ledger(store)
    await ledger.append([_record(), _record(), _record()])
    del store.entries[3], store.entries[2]

    fresh = await _ledger(store).verify()
    assert (fresh.first_bad_sequence, fresh.intact) == (2, False)

    store.noted = Head()
    remembered = await ledger.verify()
    assert (remembered.first_bad_sequence, remembered.intact) == (2, False)


async def test_a_cut_off_end_is_not_written_over() -> None:
    store = FakeEntries()
    await _ledger(store).append([_record(), _record(), _record()])
    del store.entries[3], store.entries[2]

    assert await _ledger(store).append_counted([_record()]) == 4

    assert (await _ledger(store).verify()).first_bad_sequence == 2


async def test_a_last_record_that_was_changed_stays_visible_when_others_follow() -> None:
    store = FakeEntries()
    await _ledger(store).append([_record(), _record()])
    forged = replace(store.entries[2], principal="principals/nobody")
    store.entries[2] = replace(forged, hash=hash_of(forged))

    await _ledger(store).append([_record()])

    assert (await _ledger(store).verify()).first_bad_sequence == 3


class _Headless(FakeEntries):
    async def note_head(self, head: Head) -> None:
        raise RuntimeError("the driver found a new way to fail")


async def test_a_head_that_cannot_be_noted_stops_nobody() -> None:
    ledger = _ledger(_Headless())

    numbers = await asyncio.gather(*(ledger.append_counted([_record()]) for _ in range(5)))

    assert numbers == [1, 2, 3, 4, 5] and await ledger.append_counted([_record()]) == 6
    assert (await ledger.verify()).intact


async def test_an_expected_hash_is_held_against_the_record() -> None:
    store = FakeEntries()
    ledger = _ledger(store)
    await ledger.append([_record(), _record()])

    assert (await ledger.verify(Head(1, store.entries[1].hash))).intact
    assert (await ledger.verify(Head(1, "0" * 64))).first_bad_sequence == 1
    assert (await ledger.verify(Head(9, "0" * 64))).first_bad_sequence == 3


async def test_long_values_are_cut_not_refused() -> None:
    store = FakeEntries()

    await _ledger(store).append([_record(resource="r" * 5000, peer="p" * 5000)])

    entry: Entry = store.entries[1]
    assert len(entry.resource) == 1024 and len(entry.peer) == 256
    assert entry.resource.endswith("…")


async def test_records_without_a_kind_and_calls_with_too_many_are_refused() -> None:
    store = FakeEntries()
    ledger = _ledger(store)

    with pytest.raises(InvalidInput, match="kind"):
        await ledger.append([_record(), pb.AuditRecord()])
    with pytest.raises(InvalidInput, match="at most"):
        await ledger.append([_record()] * (MAX_RECORDS_PER_CALL + 1))
    assert await ledger.append_counted([]) == 0
    assert store.entries == {}


async def test_what_waits_is_bounded() -> None:
    store = FakeEntries()
    store.open.clear()
    ledger = _ledger(store)
    lot = [_record()] * MAX_RECORDS_PER_CALL
    waiting = [asyncio.create_task(ledger.append(lot))]
    await store.entered.wait()
    waiting += [asyncio.create_task(ledger.append(lot)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await ledger.append([_record()])

    store.open.set()
    await asyncio.gather(*waiting)
    assert (await ledger.verify()).intact


class _Raced(FakeEntries):
    """Another writer gets in between the first and the second entry of a batch, once."""

    async def insert(self, entries: Sequence[Entry]) -> None:
        if len(entries) < 2 or self.inserts:
            return await super().insert(entries)
        self.inserts += 1
        self.entries[1] = entries[0]
        (intruder,) = extend(
            Head(1, entries[0].hash), [replace(entries[0], principal="principals/intruder")]
        )
        self.entries[2] = intruder
        raise SequenceTaken(1)


async def test_what_was_written_before_a_lost_race_is_not_written_twice() -> None:
    store = _Raced()

    last = await _ledger(store).append_counted([_record("principals/a"), _record("principals/b")])

    assert last == 3
    assert [store.entries[n].principal for n in (1, 2, 3)] == [
        "principals/a",
        "principals/intruder",
        "principals/b",
    ]
    assert (await _ledger(store).verify()).intact
