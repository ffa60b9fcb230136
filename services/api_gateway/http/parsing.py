"""Turns bytes into heads and bodies: by httptools, or by a head that it accepted before."""

from __future__ import annotations

import re
from typing import Protocol

import httptools

from services.api_gateway.http.heads import Fields, ParsedHead
from services.chassis.bounded_cache import BoundedCache
from stellwerk.wire.metadata import MAX_REQUEST_ID_LENGTH

# Heads that are remembered, and the bytes from which one is not. 4096: eight models, four tenants,
# three forms and thirty body lengths are 2880 heads. With 2 KiB at most and what was read from it,
# a head takes 4 KiB: 16 MiB in all.
_MAX_KNOWN = 4096
_MAX_KNOWN_BYTES = 2048
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
# The kinds of heads, by the ids that are cut out of them: none, X-Request-Id (1), traceparent (2),
# or both.
_BOTH = 3
_LONGEST_ID = MAX_REQUEST_ID_LENGTH + 2
# Fields that say how long a body is.
_FRAMING = (b"content-length", b"transfer-encoding")
_INVALID = b"Invalid HTTP request received."
_TOO_LARGE = b"The request's headers are too large."

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
        """Returns the place of this head at the beginning of `data`, None if it is another one.

        Costs a tenth of `KnownHeads.find`: clients repeat their last head on each connection.
        """
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

    def find(self, data: bytes) -> tuple[KnownHead, Place] | None:
        """Returns the known head that `data` begins with and its place, None if there is none."""
        size = data.find(b"\r\n\r\n", 0, _MAX_KNOWN_BYTES) + 4
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
        kind, pieces, *ids = _cut(data)
        # An id that is not of the pattern would make each head another one.
        if not head.is_repeatable or len(data) > _MAX_KNOWN_BYTES:
            return
        if ids == [request_id, traceparent]:
            known = KnownHead(head, kind, pieces[0], pieces[-1])
            self._known.keep(_key(kind, pieces), known)


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


class Malformed(Exception):
    """Says that bytes are no request; `text` tells the client why."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.text = text


class Listener(Protocol):
    """Takes what is parsed; see `protocol.HttpConnection`."""

    def on_head(self, head: ParsedHead, request_id: bytes, traceparent: bytes) -> None:
        """Takes the head of a request, and its ids as the client sent them."""

    def on_part(self, data: bytes) -> None:
        """Takes a part of the request's body."""

    def on_end(self) -> None:
        """Takes the end of the request's body."""


class RequestParser:
    """Parses the bytes of one connection, with bounds that httptools does not have."""

    def __init__(self, listener: Listener, heads: KnownHeads, max_head_bytes: int) -> None:
        """Keeps in `heads` what the parser accepts. A head has at most `max_head_bytes`."""
        self._listener = listener
        self._heads = heads
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        # Whether neither a head nor a body is being parsed, whether a head is, and whether no
        # request may follow.
        self.is_between = True
        self.in_head = False
        self.ended = False
        self._keeps_alive = True
        # Whether the parser reads a head that `_feed` wrote, which is passed over.
        self._resumes = False
        # Bytes of the unfinished head in earlier reads, and bytes of the present one.
        self._head_bytes = 0
        self._read_bytes = 0
        # Bytes since the last part of a body: of chunk sizes, their extensions, and trailers.
        self._overhead = 0
        self._target = b""
        self._fields: Fields = []
        # What was parsed since the last look: how many heads, and the last one with its ids.
        self._count = 0
        self._last: tuple[ParsedHead, bytes, bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Parses some bytes. Raises Malformed; then no more can be parsed."""
        if self.ended:
            return
        try:
            if self.is_between:
                data = self._feed_head(data)
            self._feed(data)
        except httptools.HttpParserError as exc:
            # What follows a request with which the connection ends is nobody's.
            if not self.ended:
                cause = exc.__context__
                raise Malformed(cause.text if isinstance(cause, Malformed) else _INVALID) from None

    def _feed_head(self, data: bytes) -> bytes:
        """Parses the head that `data` begins with, alone, and returns the rest.

        Only so is it certain which bytes the parser took for the head, and that it took all.
        """
        size = data.find(b"\r\n\r\n", 0, _MAX_KNOWN_BYTES) + 4
        if size == 3:
            return data
        head = data[:size]
        self._count = 0
        self._feed(head)
        if self._count == 1 and not self.in_head and self._last is not None:
            self._heads.keep(head, *self._last)
        return data[size:]

    def _feed(self, data: bytes) -> None:
        """Parses some bytes. Raises httptools.HttpParserError.

        The parser ends with a head that offers an upgrade and takes its body for another protocol.
        A new one goes on there, with a head that says the same of the body's length and no more.
        """
        self._read_bytes = len(data)
        self._overhead += len(data)
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as exc:
                data = data[exc.args[0] :]
            assert self._last is not None
            headers = self._last[0].headers
            lines = [b"%b: %b\r\n" % (name, headers[name]) for name in _FRAMING if name in headers]
            self._parser = httptools.HttpRequestParser(self)
            self._resumes = True
            self._parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines, b"\r\n"]))
        if self.in_head:
            self._head_bytes += self._read_bytes
            if self._head_bytes > self._max_head_bytes:
                raise Malformed(_TOO_LARGE)
        elif not self.is_between and self._overhead > self._max_head_bytes:
            raise Malformed(_INVALID)

    # httptools' side.

    def on_message_begin(self) -> None:
        """Begins a head."""
        if self._resumes:
            return
        if self.ended:
            raise Malformed(_INVALID)
        self.is_between = False
        self.in_head = True
        self._head_bytes = 0
        self._target = b""
        self._fields = []

    def on_url(self, target: bytes) -> None:
        """Adds a piece of the request's target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a field to the head; a trailer is dropped."""
        if self.in_head:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Ends a head."""
        if self._resumes:
            self._resumes = False
            return
        # A read may hold much of a body, or many heads: only then is this one measured.
        if self._head_bytes + self._read_bytes > self._max_head_bytes:
            fields = sum(len(name) + len(value) + 4 for name, value in self._fields)
            if len(self._target) + fields > self._max_head_bytes:
                raise Malformed(_TOO_LARGE)
        parser = self._parser
        head = ParsedHead(
            parser.get_method().decode("ascii"),
            self._target,
            parser.get_http_version(),
            self._fields,
            parser.should_keep_alive(),
        )
        self.in_head = False
        self._overhead = 0
        self._keeps_alive = head.keeps_alive
        self._count += 1
        self._last = (head, *head.take_ids())
        self._listener.on_head(*self._last)

    def on_body(self, data: bytes) -> None:
        """Passes on a part of the body."""
        self._overhead = 0
        self._listener.on_part(data)

    def on_message_complete(self) -> None:
        """Ends a request."""
        if self._parser.should_upgrade():
            return  # `_feed` reads the body.
        self.is_between = True
        self.ended = not self._keeps_alive
        self._listener.on_end()
