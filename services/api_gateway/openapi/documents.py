"""Serves the documents that everyone may read: the start page, and the OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from services.api_gateway.http.response import HTML, Document, Headers, HttpResponse
from services.api_gateway.openapi import builder
from services.api_gateway.routing.routes import Route
from services.chassis.release import platform_version

PAGE = Path(__file__).with_name("docs.html")
START_PAGE = Path(__file__).with_name("start.html")
# A page is one file with its own style and script, and reads from this server alone.
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
_PAGE_HEADERS: Headers = [(b"content-security-policy", _POLICY), (b"x-frame-options", b"DENY")]
_DESCRIPTION_PATHS = (b"/openapi.json", b"/v1/openapi.json")
_BEARER = 'curl -H "Authorization: Bearer $STELLWERK_TOKEN"'


def documents_of(routes: Iterable[Route]) -> Mapping[bytes, Document]:
    """Returns the documents by path."""
    version = platform_version()
    description = HttpResponse(200, orjson.dumps(builder.document(routes, version)))
    start = HttpResponse(200, orjson.dumps(_start(version)))
    return {
        b"/": Document(start, page=_page(START_PAGE)),
        **dict.fromkeys(_DESCRIPTION_PATHS, Document(description)),
        b"/docs": Document(_page(PAGE)),
    }


def _page(path: Path) -> HttpResponse:
    return HttpResponse(200, path.read_bytes(), HTML, _PAGE_HEADERS)


def _start(version: str) -> dict[str, object]:
    """Returns the start page for programs, with what `start.html` shows to people."""
    return {
        "name": "stellwerk",
        "version": version,
        "description": (
            "The gateway of an MLOps platform: store a model with one line, predict from any"
            " language. Every call but health needs a token or an API key."
        ),
        "links": {
            "docs": "/docs",
            "openapi": "/openapi.json",
            "live": "/v2/health/live",
            "ready": "/v2/health/ready",
        },
        "guides": [
            f"docs/guides/{name}.md"
            for name in ("getting-started", "api", "operations", "security")
        ],
        "try": [
            "curl $STELLWERK_URL/v2/health/ready",
            f"{_BEARER} $STELLWERK_URL/v1/buckets/default/models",
            f"{_BEARER} $STELLWERK_URL/v1/buckets/default/models/iris:predict"
            """ -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'""",
        ],
    }
