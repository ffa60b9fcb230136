"""Request heads: read and checked once, remembered while clients repeat them byte by byte. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from services.chassis.bounded_cache import BoundedCache
from stellwerk.wire.api_keys import API_KEY_PATTERN
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

Fields = list[tuple[bytes, bytes]]

# Headers of one request; browsers and proxies send some 30.
MAX_HEADERS = 100
# Heads that are remembered, and the bytes from which one is not. 4096: eight models, four tenants,
# three forms and thirty body lengths are 2880 heads. With 2 KiB at most and what was read from it,
# a head takes 4 KiB: 16 MiB in all.
_MAX_KNOWN = 4096
MAX_KNOWN_BYTES = 2048
# What is cut out of heads, each value on a line of its own: ids, which differ from request to
# request, and API keys, which are kept nowhere. Whatever stands in their place, a parser reads the
# same head around it, because no character of the patterns ends a line.
_ID_VALUE = rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_REQUEST_ID_LENGTH
_PARENT_VALUE = rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
_KEY_VALUE = API_KEY_PATTERN.encode()
_BEARER_KEY = re.compile(rb"bearer (%b)" % _KEY_VALUE, re.IGNORECASE)
_CUTS = re.compile(
    rb"\r\n(?:x-request-id: (%b)|traceparent: (%b)|authorization: bearer (%b))(?=\r\n)"
    % (_ID_VALUE, _PARENT_VALUE, _KEY_VALUE),
    re.IGNORECASE,
)
# The kind of a head is the sum of what is cut out of it: X-Request-Id (1), traceparent (2), API key
# (4). These are the values of kinds with one of them.
_VALUES = {
    kind: re.compile(value, re.IGNORECASE)
    for kind, value in ((1, _ID_VALUE), (2, _PARENT_VALUE), (4, _KEY_VALUE))
}
# Header fields with one value: sent twice, the request is malformed (RFC 9110, 5.3). The HTTP
# parser checks Content-Length; two Host values joined are no host.
_SINGLETONS = (b"authorization", b"content-type")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
_GRPC_FORM, _PLAIN_FORM = b"grpc-timeout", b"x-request-timeout"
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_SECONDS = re.compile(rb"[0-9]{1,8}(?:\.[0-9]{1,9})?")
# Fields that make a head one of a kind, or that change how its connection goes on.
_NOT_REPEATED = frozenset(
    b"expect keep-alive proxy-connection te tracestate trailer transfer-encoding upgrade".split()
)
_KEEP_ALIVE = b"keep-alive"
# Fields that ask for more than the fast way does.
_NOT_PLAIN = frozenset([b"content-encoding", b"origin", b"access-control-request-method"])
# X-Request-Id, traceparent and API key as the client sent them, b"" for none.
Cuts = tuple[bytes, bytes, bytes]
NO_CUTS: Cuts = (b"", b"", b"")


class ParsedHead:
    """A request's head, but for what is cut out of it."""

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
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        version: str,
        fields: Fields,
        keeps_alive: bool,
    ) -> None:
        """Takes what the parser accepted, names in lower case."""
        self.method = method
        self.version = version
        self.raw_path = raw_path
        self.query = query
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
        self.is_plain = self.is_repeatable and self._is_plain()

    def _is_plain(self) -> bool:
        """Returns whether this is a POST of a body as it is, of a program."""
        return (
            self.method == "POST"
            and self.content_length > 0
            and not self.query
            and _NOT_PLAIN.isdisjoint(self.headers)
        )

    def take_cuts(self) -> Cuts:
        """Takes X-Request-Id, traceparent and an API key out of the headers and returns them."""
        headers = self.headers
        key = _BEARER_KEY.fullmatch(headers.get(b"authorization", b""))
        if key is not None:
            del headers[b"authorization"]
        ids = headers.pop(b"x-request-id", b""), headers.pop(b"traceparent", b"")
        return *ids, b"" if key is None else key[1]

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


# A head's size in some bytes, and what is cut out of it.
Place = tuple[int, Cuts]


class KnownHead:
    """A head that the parser accepted, with its bytes before and behind the one value cut out."""

    __slots__ = ("_after", "_before", "head", "kind")

    def __init__(self, head: ParsedHead, kind: int, before: bytes, after: bytes) -> None:
        """Takes the bytes before and behind the value; a head of kind 0 is all `before`."""
        self.head = head
        self.kind = kind
        self._before = before
        self._after = after

    def place(self, data: bytes) -> Place | None:
        """Returns the place of this head at the beginning of `data`, None if it is another one."""
        if not data.startswith(self._before):
            return None
        start, kind = len(self._before), self.kind
        if not kind:
            return start, NO_CUTS
        pattern = _VALUES.get(kind)
        end = data.find(b"\r\n", start, start + MAX_REQUEST_ID_LENGTH + 2)
        if pattern is None or end < 0 or not data.startswith(self._after, end):
            return None
        value = data[start:end]
        if pattern.fullmatch(value) is None:
            return None
        cuts = (
            value if kind == 1 else b"",
            value if kind == 2 else b"",
            value if kind == 4 else b"",
        )
        return end + len(self._after), cuts


class KnownHeads:
    """The heads that the parser has accepted lately, by their bytes.

    A head is known only if the parser accepted the same bytes before; the values of X-Request-Id,
    traceparent and an API key alone may differ, within a strict pattern. Neither an API key nor a
    verdict about the caller is kept.
    """

    def __init__(self) -> None:
        # By a head's bytes without what is cut out; unless that is nothing, its kind goes before.
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
            return known, (size, NO_CUTS)
        kind, pieces, cuts = _cut(key)
        known = self._known.get(_key(kind, pieces)) if kind else None
        if known is None:
            self.misses += 1
            return None
        self.hits += 1
        return known, (size, cuts)

    def keep(self, data: bytes, head: ParsedHead, given: Cuts) -> None:
        """Remembers a head with these values, which the parser read from exactly these bytes."""
        if not head.is_repeatable:
            return
        if given == NO_CUTS:
            self._known.keep(data, KnownHead(head, 0, data, b""))
            return
        kind, pieces, cuts = _cut(data)
        # An id that is not of the pattern would make each head another one.
        if cuts == given:
            self._known.keep(_key(kind, pieces), KnownHead(head, kind, pieces[0], pieces[-1]))


def _key(kind: int, pieces: list[bytes]) -> bytes:
    return b"".join([bytes([kind]), *pieces]) if kind else pieces[0]


def _cut(head: bytes) -> tuple[int, list[bytes], Cuts]:
    """Returns a head's kind, its pieces around what is cut out, and that."""
    cuts = [*NO_CUTS]
    pieces, at, kind = [], 0, 0
    for match in _CUTS.finditer(head):
        group = match.lastindex or 1
        if cuts[group - 1]:
            # Sent twice: such a head is never kept, so none is found.
            return 0, [head], NO_CUTS
        kind += 1 << (group - 1)
        cuts[group - 1] = match.group(group)
        pieces.append(head[at : match.start(group)])
        at = match.end(group)
    pieces.append(head[at:])
    return kind, pieces, (cuts[0], cuts[1], cuts[2])


# Clients repeat one Host; the cache, in C, is six times as fast as the pattern.
@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
