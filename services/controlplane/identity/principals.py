"""Defines principals and API keys as values, and checks the rules they keep. Pure: time and random
ids are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire import names
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.permissions import ALL_BUCKETS, ROLES, Grant

ADMIN = Grant("admin", ALL_BUCKETS)
CHANGEABLE = ("display_name", "roles", "disabled")
# Allowed in an update mask and ignored: clients that derive the mask from the body send them along.
_IGNORED_IN_MASK = ("name", "etag")
# Characters of a display name, and roles of a principal: every token carries the roles.
_MAX_DISPLAY_NAME = 200
_MAX_ROLES = 100


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or an application. `uid` tells it from an earlier principal of the same id. Times
    are Unix seconds.

    Tokens issued before `tokens_valid_from` are refused, because they carry outdated roles.
    """

    id: str
    uid: str
    display_name: str
    roles: tuple[Grant, ...]
    disabled: bool
    created_at: float
    etag: str
    tokens_valid_from: int = 0

    @property
    def name(self) -> str:
        """The resource name."""
        return f"principals/{self.id}"

    @property
    def administers(self) -> bool:
        """True if the principal can administer the platform now."""
        return not self.disabled and ADMIN in self.roles


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key of the principal with the uid `owner_uid`; of its text only the hash is kept."""

    id: str
    owner: str
    owner_uid: str
    display_name: str
    hash: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"principals/{self.owner}/keys/{self.id}"

    def usable(self, now: float) -> bool:
        """Returns whether tokens are issued for the key at this time."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class Revocations:
    """The tokens to refuse: those of these API keys, of these principals, and those issued to a
    principal before a Unix second.
    """

    key_ids: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    valid_from: Mapping[str, int] = field(default_factory=dict)


def parse_principal(name: str) -> str:
    """Returns the id in principals/{principal}. Raises InvalidInput."""
    return names.parse_single(name, "principals", "principal")


def parse_key(name: str) -> tuple[str, str]:
    """Returns the ids of principal and key in principals/{principal}/keys/{key}. Raises
    InvalidInput.
    """
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "principals" or parts[2] != "keys":
        raise InvalidInput("a key is named principals/{principal}/keys/{key}", field="name")
    return names.check_id(parts[1], "principal"), names.check_id(parts[3], "key")


def check_display_name(text: str) -> str:
    """Returns the display name if it is short enough. Raises InvalidInput."""
    if len(text) > _MAX_DISPLAY_NAME:
        raise InvalidInput(
            f"a display name has at most {_MAX_DISPLAY_NAME} characters", field="display_name"
        )
    return text


def check_roles(bindings: Iterable[pb.RoleBinding]) -> tuple[Grant, ...]:
    """Returns the grants of the bindings, each once. Raises InvalidInput for an unknown role, a
    service's role or a malformed bucket.
    """
    grants: dict[Grant, None] = {}
    for binding in bindings:
        role = ROLES.get(binding.role)
        if role is None or role.service:
            bindable = ", ".join(name for name, known in ROLES.items() if not known.service)
            raise InvalidInput(
                f"there is no role '{binding.role[:64]}' to bind; there are {bindable}",
                field="roles",
                role=binding.role,
            )
        bucket = binding.bucket
        grants[
            Grant(role.name, bucket if bucket == ALL_BUCKETS else names.check_id(bucket, "bucket"))
        ] = None
    if len(grants) > _MAX_ROLES:
        raise InvalidInput(f"a principal has at most {_MAX_ROLES} roles", field="roles")
    return tuple(grants)


def fields_to_change(mask: Iterable[str], wanted: pb.Principal) -> frozenset[str]:
    """Returns the fields that an update sets (AIP-134): those of the mask, all for "*", and the
    fields set in `wanted` for an empty mask. Raises InvalidInput.
    """
    paths = set(mask)
    if not paths:
        return frozenset(field for field in CHANGEABLE if getattr(wanted, field))
    if paths == {"*"}:
        return frozenset(CHANGEABLE)
    for path in sorted(paths):
        if path not in CHANGEABLE and path not in _IGNORED_IN_MASK:
            raise InvalidInput(
                f"'{path[:64]}' cannot be changed; {', '.join(CHANGEABLE)} can",
                field="update_mask",
                path=path,
            )
    return frozenset(paths) & frozenset(CHANGEABLE)


def apply_update(
    principal: Principal, wanted: pb.Principal, fields: frozenset[str], etag: str, now: float
) -> Principal:
    """Returns the principal with the wanted values in these fields and the given etag. Raises
    InvalidInput.
    """
    after = replace(
        principal,
        display_name=check_display_name(wanted.display_name)
        if "display_name" in fields
        else principal.display_name,
        roles=check_roles(wanted.roles) if "roles" in fields else principal.roles,
        disabled=wanted.disabled if "disabled" in fields else principal.disabled,
        etag=etag,
    )
    if set(after.roles) == set(principal.roles) and after.disabled == principal.disabled:
        return after
    # The next second: a token's time of issue has whole seconds, and no token issued before the
    # change in this second may stay valid.
    return replace(after, tokens_valid_from=int(now) + 1)
