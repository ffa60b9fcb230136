"""Page tokens (AIP-158): opaque to the caller, bound to their listing, checked when they return."""

from __future__ import annotations

import base64
import hashlib
import json

from stellwerk.wire.errors import InvalidInput

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def page_size(requested: int) -> int:
    """Returns the page size: 50 for 0, at most 1000. Raises InvalidInput if it is negative."""
    if requested < 0:
        raise InvalidInput("page_size must not be negative", field="page_size")
    return min(requested, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def _checksum(listing: str, position: str) -> str:
    return hashlib.sha256(f"{listing}\0{position}".encode()).hexdigest()[:16]


def encode(listing: str, position: str) -> str:
    """Returns a token for the place after `position` in a listing.

    `listing` is its method, parent and filter in one string.
    """
    data = json.dumps([position, _checksum(listing, position)]).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(listing: str, token: str) -> str:
    """Returns the position that `encode` was given, "" for the first page.

    Raises InvalidInput for any other token.
    """
    if not token:
        return ""
    try:
        position, _ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError) as exc:
        raise InvalidInput("page_token is not one of this listing's", field="page_token") from exc
    # Base64 and JSON spell one value in several ways, so the whole token is compared.
    if not isinstance(position, str) or encode(listing, position) != token:
        raise InvalidInput("page_token is not one of this listing's", field="page_token")
    return position
