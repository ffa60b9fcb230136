"""API keys and service keys: their form, what is kept of them, and which are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.controlplane.identity.keys import (
    ServiceKeys,
    new_api_key,
    new_service_key,
    parse_api_key,
    parse_service_key,
    read_directory,
)
from stellwerk.wire.permissions import ROLES

_SERVICES = sorted(name.removeprefix("service.") for name, role in ROLES.items() if role.service)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_key_is_read_back_and_only_its_hash_is_kept() -> None:
    for _ in range(50):
        key_id, text = new_api_key()
        parsed = parse_api_key(text)

        assert parsed is not None and parsed.id == key_id and len(parsed.hash) == 32
        assert text[-43:] not in repr(parsed)
    assert new_api_key() != new_api_key()


@pytest.mark.parametrize("service", _SERVICES)
def test_a_service_key_is_read_back_whatever_underscores_it_holds(service: str) -> None:
    for text in [new_service_key(service), f"sws_{service}_{'_' * 43}"]:
        parsed = parse_service_key(text)

        assert parsed is not None and parsed.id == service


@given(st.text(max_size=200))
@example("")
@example("swk_0123456789abcdef_")
@example("swk_0123456789abcdef_" + "a" * 42)
@example("swk_0123456789abcdef_" + "a" * 44)
@example("swk_0123456789abcdef_" + "a" * 43 + "\n")
@example("swk_0123456789ABCDEF_" + "a" * 43)
@example("sws_nobody_" + "a" * 43)
@example("sws__" + "a" * 43)
@example("swk_" + "0" * 100_000)
def test_anything_else_is_no_key(text: str) -> None:
    assert parse_api_key(text) is None
    assert parse_service_key(text) is None


def test_a_services_file_makes_its_key_known(tmp_path: Path) -> None:
    key = new_service_key("router")
    (tmp_path / "router.key").write_text(key + "\n")
    known = ServiceKeys(tmp_path, _Clock())

    assert known.holds(parse_service_key(key))  # type: ignore[arg-type]
    assert not known.holds(parse_service_key(new_service_key("router")))  # type: ignore[arg-type]
    assert key not in repr(vars(known))


def test_a_file_that_comes_later_is_found_and_one_that_goes_is_forgotten(tmp_path: Path) -> None:
    clock, key = _Clock(), new_service_key("api_gateway")
    parsed = parse_service_key(key)
    assert parsed is not None
    known = ServiceKeys(tmp_path, clock)
    assert not known.holds(parsed)

    (tmp_path / "api_gateway.key").write_text(key)
    assert not known.holds(parsed)  # a flood of unknown keys does not read files each time
    clock.now = 1.0
    assert known.holds(parsed)

    (tmp_path / "api_gateway.key").unlink()
    clock.now = 32.0
    assert not known.holds(parsed)


def test_two_keys_are_good_while_one_is_replaced(tmp_path: Path) -> None:
    old, new = new_service_key("runtime"), new_service_key("runtime")
    (tmp_path / "runtime.key").write_text(f"{old}\n{new}\n")
    known = ServiceKeys(tmp_path, _Clock())

    assert known.holds(parse_service_key(old)) and known.holds(parse_service_key(new))  # type: ignore[arg-type]


def test_a_key_in_another_services_file_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "runtime.key").write_text(new_service_key("controlplane"))
    (tmp_path / "router.key").write_bytes(b"\xff\xfe")
    (tmp_path / "repository.key").mkdir()
    (tmp_path / "stray.txt").write_text(new_service_key("router"))

    assert not any(read_directory(tmp_path).values())
    assert read_directory(tmp_path / "absent") == {} == read_directory(None)
