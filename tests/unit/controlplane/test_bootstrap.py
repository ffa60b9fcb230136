"""The first administrator: made once, its key in a file that only its owner reads, and nothing lost
in a crash.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.controlplane.identity.bootstrap import ADMIN_ID, Bootstrap, KeyFileError
from services.controlplane.identity.keys import digest, new_api_key, parse_api_key
from services.controlplane.identity.principals import ADMIN
from stellwerk.wire.errors import Unavailable
from tests.fakes.credentials import FakeCredentials
from tests.fakes.ledger import FakeLedger


def _bootstrap(store: FakeCredentials, path: Path | None, renew: bool = False) -> Bootstrap:
    return Bootstrap(store, FakeLedger(), path, renew, lambda: 1000.0)


def _known(store: FakeCredentials, path: Path) -> bool:
    parsed = parse_api_key(path.read_text().strip())
    assert parsed is not None
    key = store.keys.get(parsed.id)
    return key is not None and key.hash == parsed.hash and key.owner == ADMIN_ID


async def test_the_first_start_makes_an_administrator_and_the_second_nothing(
    tmp_path: Path,
) -> None:
    store, path = FakeCredentials(), tmp_path / "secrets" / "admin.key"

    assert await _bootstrap(store, path).run()
    text = path.read_text()
    assert not await _bootstrap(store, path).run()

    assert store.principals[ADMIN_ID].administers and _known(store, path)
    assert path.read_text() == text and len(store.keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["admin.key"]


async def test_a_key_that_is_in_the_file_already_is_taken_up(tmp_path: Path) -> None:
    store, path = FakeCredentials(), tmp_path / "admin.key"
    _, secret = new_api_key()
    path.write_text(secret)

    assert await _bootstrap(store, path).run()

    assert path.read_text() == secret and _known(store, path)
    assert [key.hash for key in store.keys.values()] == [digest(secret)]


async def test_a_crash_between_file_and_database_loses_nothing(tmp_path: Path) -> None:
    store, path = FakeCredentials(), tmp_path / "admin.key"
    ledger = FakeLedger()
    ledger.away = True
    crashing = Bootstrap(store, ledger, path, False, lambda: 1000.0)

    with pytest.raises(Unavailable):
        await crashing.run()
    assert path.exists() and not store.principals

    secret = path.read_text()
    assert await _bootstrap(store, path).run()
    assert path.read_text() == secret and _known(store, path)


async def test_a_lost_key_is_renewed_on_demand_only(tmp_path: Path) -> None:
    store, path = FakeCredentials(), tmp_path / "admin.key"
    await _bootstrap(store, path).run()
    path.unlink()

    assert not await _bootstrap(store, path).run()
    assert not path.exists()

    assert await _bootstrap(store, path, renew=True).run()
    assert _known(store, path) and len(store.keys) == 2


async def test_a_renewal_replaces_a_key_that_was_used_before(tmp_path: Path) -> None:
    store, path = FakeCredentials(), tmp_path / "admin.key"
    await _bootstrap(store, path).run()
    old = path.read_text()

    await _bootstrap(store, path, renew=True).run()

    assert path.read_text() != old and _known(store, path)


async def test_a_renewal_gives_a_disabled_administrator_its_role_back(tmp_path: Path) -> None:
    store, path = FakeCredentials(), tmp_path / "admin.key"
    await _bootstrap(store, path).run()
    store.principals[ADMIN_ID] = replace(store.principals[ADMIN_ID], disabled=True, roles=())

    assert await _bootstrap(store, path).run()  # nobody administers: as at a first start

    assert store.principals[ADMIN_ID].administers and ADMIN in store.principals[ADMIN_ID].roles


async def test_no_place_for_the_key_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    store = FakeCredentials()
    (tmp_path / "taken").mkdir()
    (tmp_path / "notes").write_text("my notes")

    for path in (None, tmp_path / "taken", tmp_path / "notes", tmp_path / "notes" / "admin.key"):
        with pytest.raises(KeyFileError, match="STELLWERK_ADMIN_KEY_FILE"):
            await _bootstrap(store, path).run()
    assert (tmp_path / "notes").read_text() == "my notes"
    assert not store.principals and not store.keys


async def test_the_ledger_tells_of_it_and_never_of_the_secret(tmp_path: Path) -> None:
    store, path, ledger = FakeCredentials(), tmp_path / "admin.key", FakeLedger()

    await Bootstrap(store, ledger, path, False, lambda: 1000.0).run()

    about = [(record.kind, record.resource) for record in ledger.records]
    assert about == [(1, "principals/admin"), (2, "principals/admin")]
    assert path.read_text().strip() not in repr(ledger.records)
