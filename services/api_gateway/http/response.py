"""Responses: whole ones, compressed where the caller takes it, streams, documents; their bytes.

Also says which browsers' pages may call (CORS): none, unless the settings name their origins.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from services.api_gateway.http.content_encoding import compress
from stellwerk.wire.errors import Internal

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
OCTETS = b"application/octet-stream"
HTML = b"text/html; charset=utf-8"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
    for status in range(200, 600)
}
# Bytes from which a body is compressed in a thread: level 1 takes 0.7 ms for 64 KiB.
_COMPRESS_IN_THREAD = 64 * 1024
_COMPRESSIBLE = (JSON, OCTETS, b"text/", b"application/x-ndjson")
# Content types of artifacts were chosen by whoever stored them; none may begin a header of its own.
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,256}")
_WEIGHT = re.compile(rb"[01](?:\.[0-9]{0,3})?")
_VARY = (b"vary", b"accept-encoding")
# Responses are about one caller and one moment: no cache may keep them, no browser reinterpret.
_ALWAYS: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_JSON_LINES = b"".join(
    [b"%b: %b\r\n" % header for header in [(b"content-type", JSON), *_ALWAYS, _VARY]]
)
_CORS_ALLOWED = (
    b"authorization, content-type, content-encoding, inference-header-content-length, x-request-id,"
    b" x-request-timeout, traceparent"
)
_CORS_EXPOSED = b"x-request-id, retry-after, www-authenticate, inference-header-content-length"


@dataclass(slots=True)
class HttpResponse:
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: Headers | None = None


@dataclass(slots=True)
class StreamedResponse:
    """A response of unknown length with status 200.

    Its first chunk is at hand, so that an error before it still gets its own status.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: bytes
    headers: Headers | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document that everyone may read, and its page for browsers if it has one."""

    response: HttpResponse
    page: HttpResponse | None = None

    def response_for(self, accept: bytes) -> HttpResponse:
        """Returns the page if the Accept header asks for HTML more than for JSON."""
        if self.page is None:
            return self.response
        chosen = self.page if prefers_html(accept) else self.response
        headers = [*(chosen.headers or []), (b"vary", b"accept")]
        return HttpResponse(chosen.status, chosen.body, chosen.content_type, headers)


def prefers_html(accept: bytes) -> bool:
    """Returns whether an Accept header names HTML, and JSON not at all or with a lower weight.

    A wildcard asks for neither: tools that are no browsers send it alone.
    """
    weights = {b"text/html": 0.0, JSON: 0.0}
    for item in accept.lower().split(b","):
        media_type, *parameters = (part.strip() for part in item.split(b";"))
        if media_type in weights:
            weight = next((p[2:] for p in parameters if p.startswith(b"q=")), b"1")
            weights[media_type] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    return weights[b"text/html"] > weights[JSON]


def takes_long(response: HttpResponse) -> bool:
    """Returns whether compressing the body would stop an event loop for a millisecond or more."""
    return len(response.body) >= _COMPRESS_IN_THREAD


async def encode(
    response: HttpResponse, extra: Headers, encoding: bytes | None
) -> tuple[bytes, bytes]:
    """Returns what `encode_now` does; compresses a large body in a thread."""
    if encoding is not None and takes_long(response):
        return await asyncio.to_thread(encode_now, response, extra, encoding)
    return encode_now(response, extra, encoding)


def encode_now(
    response: HttpResponse, extra: Headers, encoding: bytes | None
) -> tuple[bytes, bytes]:
    """Returns the header lines and the body of a whole response, with the `extra` headers.

    The body is compressed if an encoding is given and the content type is worth it.
    """
    lines, body = lines_of(response, extra), response.body
    if encoding is not None and response.content_type.startswith(_COMPRESSIBLE):
        body = compress(body, encoding)
        lines += b"content-encoding: %b\r\n" % encoding
    if response.status != 204:
        lines += b"content-length: %d\r\n" % len(body)
    return lines, body


def lines_of(response: HttpResponse | StreamedResponse, extra: Headers) -> bytes:
    """Returns the header lines of a response but for its length, with the `extra` headers."""
    if response.content_type is JSON:
        known, headers = _JSON_LINES, extra
    else:
        if not _PRINTABLE.fullmatch(response.content_type):
            raise Internal("the response's content type is not printable ASCII")
        known, headers = b"", [(b"content-type", response.content_type), *_ALWAYS, *extra]
        if response.content_type.startswith(_COMPRESSIBLE):
            headers.append(_VARY)
    if response.headers is not None:
        headers = headers + response.headers
    return known + _lines(headers)


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def date_line(at: float) -> bytes:
    """Returns the Date header field of a Unix time as a line."""
    return b"date: %b\r\n" % formatdate(at, usegmt=True).encode()


def refusal(text: bytes, date: bytes) -> bytes:
    """Returns the response to bytes that are no request, behind which the connection is closed."""
    return (
        b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (STATUS_LINES[400], date, len(text), text)
    )


def cors_headers(request: Mapping[bytes, bytes], origins: frozenset[str]) -> Headers:
    """Returns the response's CORS headers for these request headers and allowed origins.

    A caller that is no page of an allowed origin gets none but Vary.
    """
    origin = request.get(b"origin")
    if origin is None or not origins:
        return []
    if "*" not in origins and origin.decode("latin-1") not in origins:
        return [(b"vary", b"origin")]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _CORS_EXPOSED),
        (b"vary", b"origin"),
    ]


def preflight_headers(methods: Iterable[str]) -> Headers:
    """Returns the headers that the response to a CORS preflight request adds."""
    return [
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", _CORS_ALLOWED),
        (b"access-control-max-age", b"600"),
    ]
