"""Serves the documents that everyone may read: the OpenAPI description and a page that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from services.api_gateway.http.response import HTML, HttpResponse
from services.api_gateway.openapi import builder
from services.api_gateway.routing.routes import Route
from services.chassis.release import platform_version

PAGE = Path(__file__).with_name("docs.html")
# The page is one file: its own style and script, and the document from this server. Nothing else
# may load.
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
_PATHS = (b"/openapi.json", b"/v1/openapi.json")


def documents_of(routes: Iterable[Route]) -> Mapping[bytes, HttpResponse]:
    """Returns the documents by path."""
    description = HttpResponse(200, orjson.dumps(builder.document(routes, platform_version())))
    page = HttpResponse(
        200,
        PAGE.read_bytes(),
        HTML,
        [(b"content-security-policy", _POLICY), (b"x-frame-options", b"DENY")],
    )
    return {**dict.fromkeys(_PATHS, description), b"/docs": page}
