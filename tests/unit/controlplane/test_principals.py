"""What a principal may be, and what an update changes."""

from __future__ import annotations

import pytest

from services.controlplane.identity.principals import (
    ADMIN,
    ApiKey,
    Principal,
    apply_update,
    check_display_name,
    check_roles,
    fields_to_change,
    parse_key,
    parse_principal,
)
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.permissions import ROLES, Grant

ADA = Principal("ada", "u1", "Ada", (Grant("editor", "team-a"),), False, 1.0, "e1")


def _binding(role: str, bucket: str = "*") -> pb.RoleBinding:
    return pb.RoleBinding(role=role, bucket=bucket)


def test_every_role_of_people_can_be_bound_and_none_of_services() -> None:
    for name, role in ROLES.items():
        if role.service:
            with pytest.raises(InvalidInput, match="no role"):
                check_roles([_binding(name)])
        else:
            assert check_roles([_binding(name, "team-a")]) == (Grant(name, "team-a"),)


@pytest.mark.parametrize(
    "role, bucket", [("", "*"), ("root", "*"), ("Editor", "*"), ("editor", ""), ("editor", "a/b")]
)
def test_an_unknown_role_or_a_malformed_bucket_is_refused(role: str, bucket: str) -> None:
    with pytest.raises(InvalidInput):
        check_roles([_binding(role, bucket)])


def test_a_role_given_twice_counts_once_and_too_many_are_refused() -> None:
    assert check_roles([_binding("viewer"), _binding("viewer")]) == (Grant("viewer"),)
    with pytest.raises(InvalidInput, match="at most"):
        check_roles([_binding("viewer", f"b{i}") for i in range(101)])


def test_only_an_enabled_principal_with_admin_everywhere_administers() -> None:
    assert Principal("a", "u", "", (ADMIN,), False, 0, "e").administers
    assert not Principal("a", "u", "", (ADMIN,), True, 0, "e").administers
    assert not Principal("a", "u", "", (Grant("admin", "team-a"),), False, 0, "e").administers


@pytest.mark.parametrize(
    "mask, wanted, fields",
    [
        (["roles"], pb.Principal(display_name="x"), {"roles"}),
        (["disabled", "display_name"], pb.Principal(), {"disabled", "display_name"}),
        (["*"], pb.Principal(), {"roles", "disabled", "display_name"}),
        ([], pb.Principal(display_name="x", name="principals/ada", etag="e"), {"display_name"}),
        (["name", "etag", "roles"], pb.Principal(), {"roles"}),
    ],
)
def test_the_mask_says_what_changes(
    mask: list[str], wanted: pb.Principal, fields: set[str]
) -> None:
    assert fields_to_change(mask, wanted) == fields


@pytest.mark.parametrize("path", ["create_time", "roles.role", "uid", "*roles", "$set"])
def test_what_cannot_be_changed_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be changed"):
        fields_to_change(["roles", path], pb.Principal())


def test_an_update_leaves_the_other_fields_alone() -> None:
    wanted = pb.Principal(display_name="Countess", roles=[_binding("viewer")], disabled=True)

    after = apply_update(ADA, wanted, frozenset({"display_name"}), "e2", 50.5)

    assert after == Principal("ada", "u1", "Countess", ADA.roles, False, 1.0, "e2")


@pytest.mark.parametrize("field", ["roles", "disabled"])
def test_a_change_of_what_it_may_do_ends_older_tokens(field: str) -> None:
    wanted = pb.Principal(roles=[_binding("viewer")], disabled=True)

    assert apply_update(ADA, wanted, frozenset({field}), "e2", 50.5).tokens_valid_from == 51


@pytest.mark.parametrize(
    "name", ["", "ada", "principals/", "principals/a/b", "principals/../x", "services/router"]
)
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        parse_principal(name)
    with pytest.raises(InvalidInput):
        parse_key(f"{name}/keys/../k")


def test_names_are_read() -> None:
    assert parse_principal("principals/ada") == "ada"
    assert parse_key("principals/ada/keys/0123") == ("ada", "0123")


def test_a_key_lapses_and_can_be_revoked() -> None:
    key = ApiKey("k", "ada", "u1", "", b"", 0.0)

    assert key.usable(1e12)
    assert not ApiKey("k", "ada", "u1", "", b"", 0.0, expires_at=5.0).usable(5.0)
    assert not ApiKey("k", "ada", "u1", "", b"", 0.0, revoked_at=1.0).usable(0.5)


def test_a_display_name_is_bounded() -> None:
    assert check_display_name("x" * 200)
    with pytest.raises(InvalidInput, match="200"):
        check_display_name("x" * 201)
