"""Values of the domain as messages of the API."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import timestamp_pb2

from services.controlplane.audit.chain import Entry, Finding
from services.controlplane.identity.principals import ApiKey, Principal
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.permissions import Grant, Role

# 9999-12-31, where protobuf's timestamps end.
_LAST_MILLISECOND = 253_402_300_799_000


def timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    """Unix seconds as a timestamp of whole microseconds; None stays None."""
    if seconds is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def bindings(grants: Iterable[Grant]) -> list[identity.RoleBinding]:
    return [identity.RoleBinding(role=grant.role, bucket=grant.bucket) for grant in grants]


def principal(value: Principal) -> identity.Principal:
    return identity.Principal(
        name=value.name,
        display_name=value.display_name,
        roles=bindings(value.roles),
        disabled=value.disabled,
        create_time=timestamp(value.created_at),
        etag=value.etag,
    )


def api_key(value: ApiKey) -> identity.ApiKey:
    return identity.ApiKey(
        name=value.name,
        display_name=value.display_name,
        create_time=timestamp(value.created_at),
        expire_time=timestamp(value.expires_at),
        revoke_time=timestamp(value.revoked_at),
    )


def role(value: Role) -> identity.Role:
    return identity.Role(
        name=value.name, description=value.description, permissions=sorted(value.permissions)
    )


def record(entry: Entry) -> audit.AuditRecord:
    """The record; what was tampered with until it fits no message is shown as far as it does."""
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
    """The number in a page token, 0 for the first page. InvalidInput if it is none: anyone can
    write a token.
    """
    if position and not (position.isascii() and position.isdigit() and len(position) < 19):
        raise InvalidInput("page_token is not one of this listing's", field="page_token")
    return int(position or 0)


def finding(value: Finding) -> audit.VerifyResponse:
    return audit.VerifyResponse(
        intact=value.intact,
        checked=value.checked,
        first_bad_sequence=value.first_bad_sequence,
        problem=value.problem,
        last_sequence=value.last.sequence,
        last_hash=value.last.hash if value.last.sequence else "",
    )
