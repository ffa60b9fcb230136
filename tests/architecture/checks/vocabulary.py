"""One error vocabulary: every class has its own reason, and every code a row in the gateway's HTTP
table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import grpc

from stellwerk.wire.errors import ServiceError


def classes(root: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """All error classes below this one."""
    return [found for child in root.__subclasses__() for found in (child, *classes(child))]


def reasons(errors: Iterable[type[ServiceError]]) -> list[str]:
    """Classes without a reason of their own, or whose reason another class has."""
    owners: dict[str, str] = {}
    found = []
    for error in errors:
        if not isinstance(error.code, grpc.StatusCode) or error.code is grpc.StatusCode.OK:
            found.append(f"{error.__name__}: has no error code")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,62}", error.reason):
            found.append(f"{error.__name__}: {error.reason!r} is no reason in UPPER_SNAKE_CASE")
        if (owner := owners.setdefault(error.reason, error.__name__)) != error.__name__:
            found.append(f"{error.__name__}: the reason {error.reason} belongs to {owner}")
    return found


def http_rows(
    errors: Iterable[type[ServiceError]], table: Mapping[grpc.StatusCode, int]
) -> list[str]:
    """Codes that errors use and that the table does not translate into an HTTP error."""
    codes = sorted({error.code for error in errors}, key=lambda code: int(code.value[0]))
    return [
        f"{code.name}: has no HTTP error status"
        for code in codes
        if not 400 <= table.get(code, 0) <= 599
    ]
