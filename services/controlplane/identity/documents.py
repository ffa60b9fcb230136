"""Converts principals and API keys to MongoDB documents and back. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.chassis.mongo import Document
from services.controlplane.identity.principals import ApiKey, Principal
from stellwerk.wire.permissions import Grant


def to_date(seconds: float) -> datetime:
    """Returns Unix seconds as the date that MongoDB's expiry of documents needs."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def principal_document(principal: Principal) -> Document:
    """Returns the document of a principal."""
    return {
        "_id": principal.id,
        "uid": principal.uid,
        "display_name": principal.display_name,
        "roles": [[grant.role, grant.bucket] for grant in principal.roles],
        "disabled": principal.disabled,
        "created_at": principal.created_at,
        "etag": principal.etag,
        "tokens_valid_from": principal.tokens_valid_from,
    }


def to_principal(document: Document) -> Principal:
    """Reads a principal from its document."""
    return Principal(
        id=document["_id"],
        uid=document["uid"],
        display_name=document["display_name"],
        roles=tuple(Grant(role, bucket) for role, bucket in document["roles"]),
        disabled=document["disabled"],
        created_at=document["created_at"],
        etag=document["etag"],
        tokens_valid_from=document["tokens_valid_from"],
    )


def key_document(key: ApiKey) -> Document:
    """Returns the document of an API key."""
    return {
        "_id": key.id,
        "owner": key.owner,
        "owner_uid": key.owner_uid,
        "display_name": key.display_name,
        "hash": key.hash,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def to_key(document: Document) -> ApiKey:
    """Reads an API key from its document."""
    return ApiKey(
        id=document["_id"],
        owner=document["owner"],
        owner_uid=document["owner_uid"],
        display_name=document["display_name"],
        hash=bytes(document["hash"]),
        created_at=document["created_at"],
        expires_at=document["expires_at"],
        revoked_at=document["revoked_at"],
    )
