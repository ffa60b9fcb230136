"""Principals, API keys and signing keys in a real MongoDB."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from services.chassis.mongo import Document, connect
from services.controlplane.config import MAX_LIFETIME_SECONDS
from services.controlplane.identity.principals import Principal, Revocations
from services.controlplane.identity.register import PrincipalRegister, make_key
from services.controlplane.identity.sealing import Sealer, WrongRootKey
from services.controlplane.identity.signing_key_store import SigningKeyStore
from services.controlplane.identity.signing_keys import key_that_signs, new_signing_key
from services.controlplane.identity.store import IdentityStore
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.errors import AlreadyExists, Conflict, KeyNotFound, NotReady, PrincipalNotFound
from stellwerk.wire.permissions import Grant


@dataclass
class _Stores:
    client: AsyncMongoClient[Document]
    name: str
    identity: IdentityStore
    signing_keys: SigningKeyStore

    @property
    def database(self) -> Any:
        return self.client[self.name]

    def register(self, clock: Callable[[], float] = time.time) -> PrincipalRegister:
        return PrincipalRegister(self.identity, clock, _nothing)


async def _nothing() -> None:
    pass


@pytest.fixture
async def stores(mongod: str) -> AsyncIterator[_Stores]:
    client = connect(mongod, "test")
    name = f"cp_{uuid.uuid4().hex[:12]}"
    stores = _Stores(
        client,
        name,
        IdentityStore(client, name),
        SigningKeyStore(client[name], Sealer("r" * 32)),
    )
    for _ in range(2):  # a second start finds everything there
        await stores.identity.prepare()
        await stores.signing_keys.prepare()
    yield stores
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
        await stores.identity.delete(first, time.time())

    assert await stores.identity.get("ada") == second


async def test_updates_without_an_etag_that_race_all_take_effect(stores: _Stores) -> None:
    register = stores.register()
    await register.create(_wanted("ada"))

    updates = [
        (_wanted("ada", display_name="Ada"), "display_name"),
        (_wanted("ada", ("viewer", "*")), "roles"),
        (_wanted("ada", disabled=True), "disabled"),
    ]

    # Ten of each: more than any number of attempts that each caller could make by itself.
    await asyncio.gather(*(register.update(wanted, [field]) for wanted, field in updates * 10))

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
    await stores.signing_keys.add_signing_key(first)
    await stores.signing_keys.add_signing_key(second)

    keys = await stores.signing_keys.signing_keys()

    assert {key.kid for key in keys} == {first.kid, second.kid}
    assert (
        key_that_signs(keys, now).kid == first.kid
        and key_that_signs(keys, now + 5).kid == second.kid
    )  # type: ignore[union-attr]
    stored = [document async for document in stores.database["signing_keys"].find()]
    assert all(first.private_der() not in document["sealed"] for document in stored)
    with pytest.raises(WrongRootKey):
        await SigningKeyStore(stores.database, Sealer("x" * 32)).signing_keys()
