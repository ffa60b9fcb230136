"""Which browsers' pages may call: none, unless the settings name their origins. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.api_gateway.http.response import Headers

_ALLOWED_HEADERS = (
    b"authorization, content-type, content-encoding, inference-header-content-length, x-request-id,"
    b" x-request-timeout, traceparent"
)
_EXPOSED_HEADERS = b"x-request-id, retry-after, www-authenticate, inference-header-content-length"


def headers(headers: Mapping[bytes, bytes], origins: frozenset[str]) -> Headers:
    """What an answer to these request headers carries, nothing for a caller that is no page of an
    allowed origin.
    """
    origin = headers.get(b"origin")
    if origin is None or not origins:
        return []
    if "*" not in origins and origin.decode("latin-1") not in origins:
        return [(b"vary", b"origin")]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
        (b"vary", b"origin"),
    ]


def preflight(methods: Iterable[str]) -> Headers:
    """What the answer to a preflight request adds."""
    return [
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
    ]
