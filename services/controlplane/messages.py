"""Converts values of the domain to messages of the API."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import timestamp_pb2

from services.controlplane.audit.chain import Entry, Verification
from services.controlplane.identity.principals import ApiKey, Principal
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.permissions import Grant, Role

# Unix milliseconds of 9999-12-31, where protobuf's timestamps end.
_LAST_MILLISECOND = 253_402_300_799_000


def timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    """Converts Unix seconds to a timestamp of whole microseconds; None stays None."""
    if seconds is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def bindings(grants: Iterable[Grant]) -> list[identity.RoleBinding]:
    """Converts grants to the API's role bindings."""
    return [identity.RoleBinding(role=grant.role, bucket=grant.bucket) for grant in grants]


def principal(value: Principal) -> identity.Principal:
    """Converts a principal to the API's message."""
    return identity.Principal(
        name=value.name,
        display_name=value.display_name,
        roles=bindings(value.roles),
        disabled=value.disabled,
        create_time=timestamp(value.created_at),
        etag=value.etag,
    )


def api_key(value: ApiKey) -> identity.ApiKey:
    """Converts an API key to the API's message, which holds no hash."""
    return identity.ApiKey(
        name=value.name,
        display_name=value.display_name,
        create_time=timestamp(value.created_at),
        expire_time=timestamp(value.expires_at),
        revoke_time=timestamp(value.revoked_at),
    )


def role(value: Role) -> identity.Role:
    """Converts a role to the API's message."""
    return identity.Role(
        name=value.name, description=value.description, permissions=sorted(value.permissions)
    )


def record(entry: Entry) -> audit.AuditRecord:
    """Converts a ledger's entry to a record; a field that was tampered with and no longer fits the
    message is shown as "(unreadable)" or 0.
    """
    text = {
        name: value if isinstance(value := getattr(entry, name), str) else "(unreadable)"
        for name in (
            "principal",
            "method",
            "resource",
            "request_id",
            "service",
            "outcome",
            "peer",
            "previous_hash",
            "hash",
        )
    }
    number = {
        name: value if isinstance(value := getattr(entry, name), int) else 0
        for name in ("time_ms", "count")
    }
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMilliseconds(min(max(number["time_ms"], 0), _LAST_MILLISECOND))
    return audit.AuditRecord(
        sequence=entry.sequence if isinstance(entry.sequence, int) else 0,
        time=stamp,
        kind=entry.kind if entry.kind in audit.AuditRecord.Kind.values() else 0,  # type: ignore[arg-type]
        count=min(max(number["count"], 0), 2**32 - 1),
        **text,
    )


def sequence(position: str) -> int:
    """Returns the entry's number in a page token, 0 for the first page. Raises InvalidInput for a
    token that the listing did not issue.
    """
    if position and not (position.isascii() and position.isdigit() and len(position) < 19):
        raise InvalidInput("page_token is not one of this listing's", field="page_token")
    return int(position or 0)


def verification(value: Verification) -> audit.VerifyResponse:
    """Converts the result of a verification to the API's message."""
    return audit.VerifyResponse(
        intact=value.intact,
        checked=value.checked,
        first_bad_sequence=value.first_bad_sequence,
        problem=value.problem,
        last_sequence=value.last.sequence,
        last_hash=value.last.hash if value.last.sequence else "",
    )
