"""Turns the bytes of a connection into heads and bodies: httptools, with bounds of its own."""

from __future__ import annotations

from typing import Protocol

import httptools

from services.api_gateway.http.heads import MAX_KNOWN_BYTES, Cuts, Fields, KnownHeads, ParsedHead

# Fields that say how long a body is.
_FRAMING = (b"content-length", b"transfer-encoding")
_INVALID = b"Invalid HTTP request received."
_TOO_LARGE = b"The request's headers are too large."


class InvalidTarget(Exception):
    """Says that a request's target is no path, no URL with a path and no asterisk."""


class Malformed(Exception):
    """Says that bytes are no request; `text` tells the client why."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.text = text


class Listener(Protocol):
    """Takes what is parsed; see `protocol.HttpConnection`."""

    def on_head(self, head: ParsedHead, cuts: Cuts) -> None:
        """Takes the head of a request, and what is cut out of it."""

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
        # Bytes since the last part of a body, in reads that had none of it: of chunk sizes, their
        # extensions, and trailers. Those of whole trailers are counted as they end.
        self._overhead = 0
        self._trailer_bytes = 0
        self._target = b""
        self._fields: Fields = []
        # What was parsed since the last look: how many heads, and the last one with its ids.
        self._count = 0
        self._last: tuple[ParsedHead, Cuts] | None = None

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

    def close(self) -> None:
        """Lets go of what refers to this object; no more can be parsed."""
        del self._parser, self._listener

    def _feed_head(self, data: bytes) -> bytes:
        """Parses the head that `data` begins with, alone, and returns the rest.

        Only so is it certain which bytes the parser took for the head, and that it took all.
        """
        size = data.find(b"\r\n\r\n", 0, MAX_KNOWN_BYTES) + 4
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
            # The parser leaves the white space behind a value, which is no part of it.
            self._fields.append((name.lower(), value.rstrip(b" \t")))
        else:
            self._trailer_bytes += len(name) + len(value) + 4
            if self._trailer_bytes > self._max_head_bytes:
                raise Malformed(_INVALID)

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
            *_split_target(self._target),
            parser.get_http_version(),
            self._fields,
            parser.should_keep_alive(),
        )
        self.in_head = False
        self._overhead = 0
        self._trailer_bytes = 0
        self._keeps_alive = head.keeps_alive
        self._count += 1
        self._last = (head, head.take_cuts())
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


def _split_target(target: bytes) -> tuple[bytes, bytes]:
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
