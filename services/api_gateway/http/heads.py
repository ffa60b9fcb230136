"""Request heads: what the parser accepted, read and checked. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

import httptools

from stellwerk.wire.api_keys import API_KEY_PREFIX

Fields = list[tuple[bytes, bytes]]

# Headers of one request; browsers and proxies send some 30.
MAX_HEADERS = 100
# Header fields with one value: sent twice, the request is malformed (RFC 9110, 5.3). The HTTP
# parser checks Content-Length; two Host values joined are no host.
_SINGLETONS = (b"authorization", b"content-type")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
_GRPC_FORM, _PLAIN_FORM = b"grpc-timeout", b"x-request-timeout"
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_SECONDS = re.compile(rb"[0-9]{1,8}(?:\.[0-9]{1,9})?")
_REQUEST_ID, _TRACEPARENT = b"x-request-id", b"traceparent"
# Fields that make a head one of a kind, or that change how its connection goes on.
_NOT_REPEATED = (
    b"connection",
    b"expect",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"tracestate",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
)
# Fields that ask for more than the fast way does.
_NOT_PLAIN = (b"content-encoding", b"origin", b"access-control-request-method")
_API_KEY = b"bearer " + API_KEY_PREFIX.encode()


class InvalidTarget(Exception):
    """Says that a request's target is no path, no URL with a path and no asterisk."""


class ParsedHead:
    """What a request's head says, but for the ids that differ from request to request."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "header_count",
        "headers",
        "is_plain",
        "is_repeatable",
        "keeps_alive",
        "malformed",
        "method",
        "query",
        "raw_path",
        "timeout",
        "version",
    )

    def __init__(
        self, method: str, target: bytes, version: str, fields: Fields, keeps_alive: bool
    ) -> None:
        """Takes what the parser accepted, names in lower case. Raises InvalidTarget."""
        self.method = method
        self.version = version
        self.raw_path, self.query = split_target(target)
        self.header_count = len(fields)
        # What is wrong with the head, "" if nothing: a sentence for the caller.
        self.malformed = ""
        self.headers = dict(fields)
        if len(self.headers) != len(fields):
            self._join_repeated(fields)
        headers = self.headers
        self._check()
        # HTTP/1.0 closes after each response; its own keep-alive is not offered.
        self.keeps_alive = keeps_alive and version == "1.1"
        length = headers.get(b"content-length", b"")
        self.content_length = int(length) if length.isdigit() else 0
        expects = headers.get(b"expect")
        # An HTTP/1.0 client knows no interim response (RFC 9110, 10.1.1).
        self.expects_continue = (
            expects is not None and expects.lower() == b"100-continue" and version == "1.1"
        )
        # The seconds that the caller gives the call, None if it names none.
        self.timeout: float | None = None
        if _GRPC_FORM in headers or _PLAIN_FORM in headers:
            self._read_timeout()
        # Whether the same bytes may be taken for the same head again, without the parser.
        self.is_repeatable = (
            self.keeps_alive
            and not self.malformed
            and self.header_count == len(headers)
            and self.header_count <= MAX_HEADERS
            and headers.keys().isdisjoint(_NOT_REPEATED)
        )
        # Whether the fast way may serve it.
        self.is_plain = (
            self.is_repeatable
            and method == "POST"
            and self.content_length > 0
            and b"?" not in target
            and headers.keys().isdisjoint(_NOT_PLAIN)
            and not headers.get(b"authorization", b"").lower().startswith(_API_KEY)
        )

    def take_ids(self) -> tuple[bytes, bytes]:
        """Takes X-Request-Id and traceparent out of the headers and returns them, b"" for none."""
        return self.headers.pop(_REQUEST_ID, b""), self.headers.pop(_TRACEPARENT, b"")

    def header(self, name: bytes) -> str:
        """Returns the header's value, "" if the request has no such header."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def _join_repeated(self, fields: Fields) -> None:
        """Joins the values of list fields sent in several lines (RFC 9110, 5.2)."""
        joined: dict[bytes, bytes] = {}
        for name, value in fields:
            if name in joined and name in _SINGLETONS:
                self.malformed = f"the header {name.decode().title()} is given twice; send it once"
            joined[name] = joined[name] + b", " + value if name in joined else value
        self.headers = joined

    def _check(self) -> None:
        host = self.headers.get(b"host")
        if not (_is_host(host) if host is not None else self.version == "1.0"):
            self.malformed = "an HTTP/1.1 request needs one Host header, such as 127.0.0.1:8080"
        if self.version not in ("1.1", "1.0"):
            self.malformed = "the request must be of HTTP/1.1 or HTTP/1.0"
        if self.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            self.malformed = "Transfer-Encoding must be chunked; say gzip as Content-Encoding"

    def _read_timeout(self) -> None:
        """Reads Grpc-Timeout ("100m"), or else X-Request-Timeout (seconds)."""
        grpc_form = self.headers.get(_GRPC_FORM, b"").strip()
        plain = self.headers.get(_PLAIN_FORM, b"").strip()
        if grpc_form:
            match = _GRPC_TIMEOUT.fullmatch(grpc_form)
            self.timeout = int(match.group(1)) * _GRPC_UNITS[match.group(2)] if match else 0.0
        elif plain:
            self.timeout = float(plain) if _SECONDS.fullmatch(plain) else 0.0
        if self.timeout is not None and self.timeout <= 0:
            self.malformed = (
                "a timeout is a positive number: 'Grpc-Timeout: 500m' or 'X-Request-Timeout: 0.5'"
            )


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Returns the path and the query of a request's target. Raises InvalidTarget."""
    if not target.isascii():
        raise InvalidTarget
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise InvalidTarget from None
    if url.path is None:
        raise InvalidTarget
    return url.path, url.query or b""


# Clients repeat one Host; the cache, in C, is six times as fast as the pattern.
@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
