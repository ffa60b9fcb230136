"""Request heads: read and checked once, remembered while clients repeat them byte by byte. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

import httptools

from services.chassis.bounded_cache import BoundedCache
from stellwerk.wire.api_keys import API_KEY_PREFIX
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

Fields = list[tuple[bytes, bytes]]

# Headers of one request; browsers and proxies send some 30.
MAX_HEADERS = 100
# Heads that are remembered, and the bytes from which one is not. 4096: eight models, four tenants,
# three forms and thirty body lengths are 2880 heads. With 2 KiB at most and what was read from it,
# a head takes 4 KiB: 16 MiB in all.
_MAX_KNOWN = 4096
MAX_KNOWN_BYTES = 2048
# The ids that differ from request to request, each on a line of its own. Whatever stands in their
# place, a parser reads the same head around it, because no character of the patterns ends a line.
_ID_VALUE = rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_REQUEST_ID_LENGTH
_PARENT_VALUE = rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
# By the kind of a head with one id.
_VALUES = {1: re.compile(_ID_VALUE), 2: re.compile(_PARENT_VALUE, re.IGNORECASE)}
_IDS = re.compile(
    rb"\r\n(?:x-request-id: (%b)|traceparent: (%b))(?=\r\n)" % (_ID_VALUE, _PARENT_VALUE),
    re.IGNORECASE,
)
# The kinds of heads, by the ids cut out of them: none, X-Request-Id (1), traceparent (2), or both.
_BOTH = 3
_LONGEST_ID = MAX_REQUEST_ID_LENGTH + 2
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
_NOT_REPEATED = frozenset(
    b"expect keep-alive proxy-connection te tracestate trailer transfer-encoding upgrade".split()
)
_KEEP_ALIVE = b"keep-alive"
# Fields that ask for more than the fast way does.
_NOT_PLAIN = frozenset([b"content-encoding", b"origin", b"access-control-request-method"])
_API_KEY = b"bearer " + API_KEY_PREFIX.encode()


class InvalidTarget(Exception):
    """Says that a request's target is no path, no URL with a path and no asterisk."""


class ParsedHead:
    """A request's head, but for the ids that differ from request to request."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "header_count",
        "headers",
        "is_plain",
        "is_repeatable",
        "keeps_alive",
        "malformed",
        "meaning",
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
        # What the fast way read in the head when it first saw it; None before.
        self.meaning: object = None
        # Whether the same bytes may be taken for the same head again, without the parser.
        self.is_repeatable = (
            self.keeps_alive
            and not self.malformed
            and len(fields) == len(headers)
            and len(fields) <= MAX_HEADERS
            and _NOT_REPEATED.isdisjoint(headers)
            # Many clients say what HTTP/1.1 does anyway.
            and headers.get(b"connection", _KEEP_ALIVE).lower() == _KEEP_ALIVE
        )
        # Whether the fast way may serve it.
        self.is_plain = self.is_repeatable and self._is_plain(target)

    def _is_plain(self, target: bytes) -> bool:
        """Returns whether this is a POST of a body as it is, of a program with a token."""
        return (
            self.method == "POST"
            and self.content_length > 0
            and b"?" not in target
            and _NOT_PLAIN.isdisjoint(self.headers)
            and not self.headers.get(b"authorization", b"").lower().startswith(_API_KEY)
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


# A head's size, its X-Request-Id and its traceparent, b"" for none, in some bytes.
Place = tuple[int, bytes, bytes]


class KnownHead:
    """A head that the parser accepted, with its bytes before and behind the value of its one id."""

    __slots__ = ("_after", "_before", "head", "kind")

    def __init__(self, head: ParsedHead, kind: int, before: bytes, after: bytes) -> None:
        """Takes the bytes before and behind the id; a head of kind 0 is all `before`."""
        self.head = head
        self.kind = kind
        self._before = before
        self._after = after

    def place(self, data: bytes) -> Place | None:
        """Returns the place of this head at the beginning of `data`, None if it is another one."""
        if self.kind == _BOTH or not data.startswith(self._before):
            return None
        if not self.kind:
            return len(self._before), b"", b""
        start = len(self._before)
        end = data.find(b"\r\n", start, start + _LONGEST_ID)
        if end < 0 or not data.startswith(self._after, end):
            return None
        id = data[start:end]
        if _VALUES[self.kind].fullmatch(id) is None:
            return None
        size = end + len(self._after)
        return (size, id, b"") if self.kind == 1 else (size, b"", id)


class KnownHeads:
    """The heads that the parser has accepted lately, by their bytes.

    A head is known only if the parser accepted the same bytes before; the values of X-Request-Id
    and traceparent alone may differ, within a strict pattern. No verdict about the caller is kept.
    """

    def __init__(self) -> None:
        # By a head's bytes. The values of ids are cut out of a key, and its kind goes before it.
        self._known: BoundedCache[bytes, KnownHead] = BoundedCache(_MAX_KNOWN)
        self.hits = 0
        self.misses = 0

    def find(self, data: bytes, last: KnownHead | None = None) -> tuple[KnownHead, Place] | None:
        """Returns the known head that `data` begins with and its place, None if there is none.

        `last` is the head that the connection had before: clients repeat it, and to compare with it
        costs a tenth of a look-up.
        """
        if last is not None and (place := last.place(data)) is not None:
            self.hits += 1
            return last, place
        size = data.find(b"\r\n\r\n", 0, MAX_KNOWN_BYTES) + 4
        if size == 3:
            self.misses += 1
            return None
        key = data[:size]
        known = self._known.get(key)
        # Bytes that begin as the key of another kind are no such head.
        if known is not None and known.kind == 0:
            self.hits += 1
            return known, (size, b"", b"")
        kind, pieces, request_id, traceparent = _cut(key)
        known = self._known.get(_key(kind, pieces)) if kind else None
        if known is None:
            self.misses += 1
            return None
        self.hits += 1
        return known, (size, request_id, traceparent)

    def keep(self, data: bytes, head: ParsedHead, request_id: bytes, traceparent: bytes) -> None:
        """Remembers a head with these ids, which the parser read from exactly these bytes."""
        if not head.is_repeatable:
            return
        if not request_id and not traceparent:
            self._known.keep(data, KnownHead(head, 0, data, b""))
            return
        kind, pieces, *ids = _cut(data)
        # An id that is not of the pattern would make each head another one.
        if ids == [request_id, traceparent]:
            self._known.keep(_key(kind, pieces), KnownHead(head, kind, pieces[0], pieces[-1]))


def _key(kind: int, pieces: list[bytes]) -> bytes:
    return b"".join([bytes([kind]), *pieces]) if kind else pieces[0]


def _cut(head: bytes) -> tuple[int, list[bytes], bytes, bytes]:
    """Returns a head's kind, its pieces around the ids, X-Request-Id and traceparent."""
    ids = [b"", b""]
    pieces, at, kind = [], 0, 0
    for match in _IDS.finditer(head):
        group = match.lastindex or 1
        if kind & group:
            # Sent twice: such a head is never kept, so none is found.
            return 0, [head], b"", b""
        kind |= group
        ids[group - 1] = match.group(group)
        pieces.append(head[at : match.start(group)])
        at = match.end(group)
    pieces.append(head[at:])
    return kind, pieces, ids[0], ids[1]


# Clients repeat one Host; the cache, in C, is six times as fast as the pattern.
@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
