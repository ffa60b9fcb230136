"""What the control plane keeps, in a real MongoDB: races, revocations, and a ledger somebody
tampers with.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from services.chassis.mongo import Document, connect
from services.controlplane import messages
from services.controlplane.audit.entries import MongoEntries
from services.controlplane.audit.ledger import Ledger
from services.controlplane.identity.issuer import MAX_LIFETIME_SECONDS, current, new_signing_key
from services.controlplane.identity.principals import Principal
from services.controlplane.identity.register import Register, make_key
from services.controlplane.identity.sealing import Sealer, WrongRootKey
from services.controlplane.identity.store import IdentityStore, Revocations
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.errors import AlreadyExists, Conflict, KeyNotFound, NotReady, PrincipalNotFound
from stellwerk.wire.permissions import Grant


@dataclass
class _Stores:
    client: AsyncMongoClient[Document]
    name: str
    identity: IdentityStore
    entries: MongoEntries
    ledgers: list[Ledger] = field(default_factory=list)

    def ledger(self) -> Ledger:
        """A ledger as a process of its own would have it."""
        self.ledgers.append(Ledger(self.entries, time.time))
        return self.ledgers[-1]

    @property
    def database(self) -> Any:
        return self.client[self.name]

    def register(self, clock: Callable[[], float] = time.time) -> Register:
        return Register(self.identity, clock, _nothing)


async def _nothing() -> None:
    pass


@pytest.fixture
async def stores(mongod: str) -> AsyncIterator[_Stores]:
    client = connect(mongod, "test")
    name = f"cp_{uuid.uuid4().hex[:12]}"
    stores = _Stores(
        client, name, IdentityStore(client, name, Sealer("r" * 32)), MongoEntries(client[name])
    )
    await stores.identity.prepare()
    await stores.identity.prepare()  # a second start finds everything there
    await stores.entries.prepare()
    yield stores
    for ledger in stores.ledgers:
        await ledger.close()
    await client.drop_database(name)
    await client.close()


def _wanted(name: str, *roles: tuple[str, str], **values: Any) -> pb.Principal:
    bindings = [pb.RoleBinding(role=role, bucket=bucket) for role, bucket in roles]
    return pb.Principal(name=f"principals/{name}", roles=bindings, **values)


def _principal(name: str, *roles: Grant, disabled: bool = False) -> Principal:
    return Principal(name, uuid.uuid4().hex, name, roles, disabled, time.time(), uuid.uuid4().hex)


# --- principals


async def test_a_principal_is_read_as_it_was_written(stores: _Stores) -> None:
    made = await stores.register().create(
        _wanted("ada", ("editor", "team-a"), ("viewer", "*"), display_name="Ada")
    )

    assert await stores.identity.get("ada") == made
    assert made.roles == (Grant("editor", "team-a"), Grant("viewer"))
    with pytest.raises(AlreadyExists):
        await stores.register().create(_wanted("ada"))
    with pytest.raises(PrincipalNotFound):
        await stores.identity.get("bob")


async def test_a_stale_etag_is_a_conflict_and_changes_nothing(stores: _Stores) -> None:
    register = stores.register()
    first = await register.create(_wanted("ada"))
    second = await register.update(
        _wanted("ada", display_name="Ada", etag=first.etag), ["display_name"]
    )

    with pytest.raises(Conflict):
        await register.update(_wanted("ada", display_name="Eve", etag=first.etag), ["display_name"])
    with pytest.raises(Conflict):
        await stores.identity.replace(first, replace(first, display_name="Eve", etag="e"))
    with pytest.raises(Conflict):
        await stores.identity.delete(first, time.time())

    assert await stores.identity.get("ada") == second


async def test_updates_without_an_etag_that_race_all_take_effect(stores: _Stores) -> None:
    register = stores.register()
    await register.create(_wanted("ada"))

    await asyncio.gather(
        register.update(_wanted("ada", display_name="Ada"), ["display_name"]),
        register.update(_wanted("ada", ("viewer", "*")), ["roles"]),
        register.update(_wanted("ada", disabled=True), ["disabled"]),
    )

    ada = await stores.identity.get("ada")
    assert (ada.display_name, ada.roles, ada.disabled) == ("Ada", (Grant("viewer"),), True)


async def test_the_last_administrator_stays(stores: _Stores) -> None:
    register = stores.register()
    await register.create(_wanted("root", ("admin", "*")))
    await register.create(_wanted("off", ("admin", "*"), disabled=True))
    await register.create(_wanted("team", ("admin", "team-a")))

    for attempt in [
        register.delete("principals/root"),
        register.update(_wanted("root", disabled=True), ["disabled"]),
        register.update(_wanted("root", ("editor", "*")), ["roles"]),
    ]:
        with pytest.raises(NotReady, match="last administrator"):
            await attempt
    assert (await stores.identity.get("root")).administers and await stores.identity.administered()

    await register.update(_wanted("off"), ["disabled"])
    await register.delete("principals/root")
    with pytest.raises(NotReady):
        await register.delete("principals/off")


async def test_of_all_administrators_who_remove_each_other_at_once_one_stays(
    stores: _Stores,
) -> None:
    register = stores.register()
    names = [f"admin-{number}" for number in range(6)]
    for name in names:
        await register.create(_wanted(name, ("admin", "*")))

    outcomes = await asyncio.gather(
        *(register.delete(f"principals/{name}") for name in names), return_exceptions=True
    )

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 1 and isinstance(refused[0], NotReady)
    assert await stores.identity.administered()


async def test_principals_are_listed_page_by_page(stores: _Stores) -> None:
    register = stores.register()
    for number in range(7):
        await register.create(_wanted(f"p{number}"))

    seen, token = [], ""
    while True:
        found, token = await register.page(3, token)
        seen.append([principal.id for principal in found])
        if not token:
            break

    assert seen == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]


async def test_a_listing_that_fits_its_page_has_no_next_one(stores: _Stores) -> None:
    for number in range(3):
        await stores.register().create(_wanted(f"p{number}"))

    assert (await stores.register().page(3, ""))[1] == ""


# --- keys and revocations


async def test_a_keys_secret_is_nowhere_in_the_database(stores: _Stores) -> None:
    register = stores.register()
    await register.create(_wanted("ada"))
    made = await register.create_key("principals/ada", pb.ApiKey(display_name="laptop"))

    text = repr([document async for document in stores.database["api_keys"].find()])

    assert made.key.id in text and made.secret[-43:] not in text
    assert await register.keys_of("principals/ada") == [made.key]


async def test_a_revoked_key_is_remembered_for_as_long_as_a_token_could_live(
    stores: _Stores,
) -> None:
    now = time.time()
    register = stores.register(lambda: now)
    await register.create(_wanted("ada"))
    await register.create(_wanted("bob"))
    made = await register.create_key("principals/ada", pb.ApiKey())

    with pytest.raises(KeyNotFound):
        await register.revoke_key(f"principals/bob/keys/{made.key.id}")
    assert await stores.identity.revocations(now) == Revocations()
    revoked = await register.revoke_key(made.key.name)
    now += 5
    again = await register.revoke_key(made.key.name)

    assert revoked.revoked_at == again.revoked_at and not revoked.usable(now)
    assert (await stores.identity.revocations(now)).key_ids == (made.key.id,)
    assert (await stores.identity.revocations(now + MAX_LIFETIME_SECONDS)).key_ids == (made.key.id,)
    assert (await stores.identity.revocations(now + 2 * MAX_LIFETIME_SECONDS)).key_ids == ()


async def test_disabled_and_deleted_principals_are_revoked_and_return(stores: _Stores) -> None:
    register = stores.register()
    await register.create(_wanted("ada"))
    await register.create(_wanted("bob"))
    key = (await register.create_key("principals/bob", pb.ApiKey())).key
    now = time.time()

    await register.update(_wanted("ada", disabled=True), ["disabled"])
    await register.delete("principals/bob")
    revoked = await stores.identity.revocations(now)
    assert revoked.principals == ("principals/ada", "principals/bob") and revoked.key_ids == (
        key.id,
    )

    await register.update(_wanted("ada"), ["disabled"])
    await register.create(_wanted("bob"))
    revoked = await stores.identity.revocations(now)
    assert revoked.principals == () and revoked.key_ids == (key.id,)
    assert await register.keys_of("principals/bob") == []
    assert dict(revoked.valid_from).keys() == {"principals/ada"}


async def test_what_is_gone_is_forgotten_in_time(stores: _Stores) -> None:
    past = time.time() - 3 * MAX_LIFETIME_SECONDS
    principal = _principal("old")
    await stores.identity.create(principal, make_key(principal, "", past).key)
    await stores.identity.delete(principal, past)

    for _ in range(150):  # MongoDB looks for what is to go once a second
        left = [
            await stores.database[name].count_documents({}) for name in ("departed", "api_keys")
        ]
        if left == [0, 0]:
            break
        await asyncio.sleep(0.2)

    assert left == [0, 0]
    assert await stores.identity.revocations(time.time()) == Revocations()


# --- signing keys


async def test_signing_keys_rest_sealed_and_the_newest_signs(stores: _Stores) -> None:
    now = time.time()
    first, second = new_signing_key(now - 10), new_signing_key(now + 5)
    await stores.identity.add_signing_key(first)
    await stores.identity.add_signing_key(second)

    keys = await stores.identity.signing_keys()

    assert {key.kid for key in keys} == {first.kid, second.kid}
    assert current(keys, now).kid == first.kid and current(keys, now + 5).kid == second.kid  # type: ignore[union-attr]
    stored = [document async for document in stores.database["signing_keys"].find()]
    assert all(first.private_der() not in document["sealed"] for document in stored)
    with pytest.raises(WrongRootKey):
        await IdentityStore(stores.client, stores.name, Sealer("x" * 32)).signing_keys()


# --- the ledger


def _record(number: int = 0) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=audit.AuditRecord.KIND_INTENT,
        principal=f"principals/p{number % 3}",
        method="/stellwerk.x/Y",
        resource=f"buckets/b{number % 2}",
        service="router",
    )


async def _fill(stores: _Stores, count: int) -> Ledger:
    ledger = stores.ledger()
    await ledger.append([_record(number) for number in range(count)])
    await ledger.close()
    return ledger


async def test_two_hundred_concurrent_appends_of_two_writers_give_one_unbroken_chain(
    stores: _Stores,
) -> None:
    ledgers = [stores.ledger() for _ in range(2)]

    numbers = await asyncio.gather(
        *(ledgers[i % 2].append_counted([_record(i)]) for i in range(200))
    )

    assert sorted(numbers) == list(range(1, 201))
    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    finding = await stores.ledger().verify()
    assert finding.intact and finding.checked == 200 and finding.last.sequence == 200
    assert (await stores.entries.head()).sequence == 200


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
async def test_tampering_in_the_database_is_named(stores: _Stores, tamper: Any) -> None:
    await _fill(stores, 8)
    await tamper(stores.database["ledger"], stores.database["ledger_head"])

    finding = await stores.ledger().verify()

    assert not finding.intact and finding.first_bad_sequence == 4 and finding.problem
    # What was tampered with can still be looked at and added to.
    assert all(messages.record(entry).kind for entry in await stores.ledger().page(0, 20))
    await stores.ledger().append([_record()])
    assert (await stores.ledger().verify()).first_bad_sequence == 4


async def test_a_head_moved_back_with_the_end_cut_off_shows_against_a_kept_hash(
    stores: _Stores,
) -> None:
    ledger = await _fill(stores, 8)
    kept = (await ledger.verify()).last
    await _truncate(stores.database["ledger"], None)
    await stores.database["ledger_head"].delete_many({})

    assert (await stores.ledger().verify()).intact
    assert (await stores.ledger().verify(kept)).first_bad_sequence == 4


async def test_records_are_listed_newest_first_and_filtered_literally(stores: _Stores) -> None:
    await _fill(stores, 9)
    ledger = stores.ledger()

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


async def test_an_interrupted_batch_leaves_a_chain_that_goes_on(stores: _Stores) -> None:
    await _fill(stores, 3)
    # As after a kill between the entries and the head: the head lags behind.
    head = await stores.entries.head()
    await stores.database["ledger_head"].update_one({"_id": "head"}, {"$set": {"sequence": 1}})
    first = await stores.database["ledger"].find_one({"_id": 1})
    await stores.database["ledger_head"].update_one(
        {"_id": "head"}, {"$set": {"hash": first["hash"]}}
    )

    ledger = stores.ledger()

    assert (await ledger.verify()).intact
    assert await ledger.append_counted([_record()]) == head.sequence + 1
    await ledger.close()
    assert (await ledger.verify()).intact and (await stores.entries.head()).sequence == 4
