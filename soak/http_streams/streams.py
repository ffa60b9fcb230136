"""Generates streams: requests as clients, careless clients and attackers send them, in pieces.

A stream follows from its number alone, so that a finding is repeated by its number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
_ODD_METHODS = ["BREW", "get", "PRI", "CONNECT", "M-SEARCH", "", "GE T", "G\xe4T"]
_TARGETS = ["/", "/a", "/a?b=c", "/v2/models/m/infer", "/%41/b?x=%20"]
_ODD_TARGETS = [
    "*", "http://h/p?q=1", "http://h", "h:80", "/a b", "/\xff", "", "//x//y", "/a#b?c", "a", "?q",
    "/a??b", "/\x7f", "/\t", "https://h:1/x#y", "/" + "l" * 3000, "/a\\b", "/<>\"{}|^`",
]  # fmt: skip
_VERSIONS = ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "http/1.1", "HTTP/1.10", "HTTP/1", ""]
_PLAIN = [
    "User-Agent: soak", "Accept: */*", "Accept-Encoding: gzip", "Content-Type: application/json",
    "Authorization: Bearer abc", "X-Request-Id: {id}", "x-request-id: {id}", "Cookie: a=b; c=d",
    "traceparent: 00-{hex32}-{hex16}-01", "Connection: keep-alive", "X-Number: {id}", "X-Empty:",
    "X-Bytes: \xe4\xff", "X-Tab: a\tb", "Authorization: Bearer swk_{hex16}_" + "k" * 43,
]  # fmt: skip
_ODD_FIELDS = [
    "Host: y", "Host: a b", "Host: x/y", "Host:", "Host: [::1]:80", "Host: y\r\nHost: y",
    "Connection: close", "Connection: Upgrade\r\nUpgrade: h2c", "Connection: close, x",
    "Upgrade: websocket\r\nConnection: keep-alive, Upgrade", "Connection: Upgrade", "Upgrade: h2c",
    "Connection: keep-alive, x", "Proxy-Connection: close", "Keep-Alive: timeout=5",
    "Expect: 100-continue", "Expect: 200-ok", "TE: trailers", "Trailer: X-Trailer",
    "Authorization: Bearer swk_0_k", f"Authorization: Bearer swk_{'A' * 16}_{'k' * 43}",
    "Authorization: Bearer x\r\nAuthorization: Bearer x", "Content-Type: a\r\nContent-Type: b",
    "X-Request-Id: a\r\nX-Request-Id: b", "X-Request-Id:  a", "X-Request-Id: a b", "X-Request-Id:",
    "X-Request-Timeout: 5", "X-Request-Timeout: none", "Grpc-Timeout: 1S\r\nGrpc-Timeout: 1S",
    "X Space: a", "X-Before : a", " X-Fold: a", "X-Folded: a\r\n b", "X-Folded: a\r\n\tb", ": a",
    "No colon", "X-Nul: a\x00b", "X-Del: a\x7fb", "X-Ctl: a\x01b", "X-Cr: a\rb", "X-Lf: a\nb",
    "X(Y): a", "X\xe4: a", "X-Spaces:   a   ", "X-Vt: a\x0bb", "X-Quote: \"a", "X_Under: a",
    "Transfer-Encoding: chunked", "Content-Length: 3", "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity", "Transfer-Encoding : chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: Chunked", "Transfer-Encoding:\tchunked", "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: xchunked",
    "Content-Length: +3", "Content-Length: 3, 3", "Content-Length: 03", "Content-Length: -1",
    "Content-Length: 0x3", "Content-Length: 3 ", "Content-Length: 99999999999999999999",
    "Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length:", "Content_Length: 3", "Content-Length: 3;a", "Content-Length: \t3",
    "Content-Encoding: identity", "Content-Encoding: br",
]  # fmt: skip
_CHUNK_SIZES = ["{0:x}", "{0:X}", "000{0:x}", "{0:x};a=b", "{0:x} ", " {0:x}", "{0:x};a=\"b\"",
                "0x{0:x}", "+{0:x}", "{0:x};", "{0:x}\t", "{0:x} ;a", "{0:x};\x01", "g", "-1",
                "fffffffffffffffff", "{0:x};a=b;c"]  # fmt: skip
_TRAILERS = [
    "X-Trailer: a",
    "Content-Length: 5",
    "Host: z",
    "Authorization: Bearer t",
    "X: y\r\n z",
]
_ENDS = ["\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", ""]
_SPECIAL = [0, 9, 10, 11, 13, 32, 35, 44, 48, 58, 59, 63, 127, 128, 255]
_INNER = "GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
_FIRST_SEED = 2026_11


@dataclass(frozen=True, slots=True)
class Stream:
    """The bytes of one connection, as the reads in which they arrive."""

    number: int
    reads: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """Returns all bytes."""
        return b"".join(self.reads)


def stream_of(number: int) -> Stream:
    """Returns a stream by its number."""
    rng = random.Random(_FIRST_SEED * 1_000_003 + number)
    oddness = rng.choice((0.0, 0.0, 0.05, 0.15, 0.4))
    requests: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5))):
        if requests and rng.random() < 0.3:
            requests.append(rng.choice(requests))
        else:
            requests.append(_request(rng, oddness))
    data = bytearray("".join(requests).encode("latin-1"))
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 1, 2, 4))):
            _mutate(rng, data)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data) + 1) :]
    return Stream(number, tuple(_reads(rng, bytes(data))))


def _request(rng: random.Random, oddness: float) -> str:
    def odd(usual: list[str], unusual: list[str]) -> str:
        return rng.choice(unusual if rng.random() < oddness else usual)

    method = odd(_METHODS, _ODD_METHODS)
    fields = ["Host: x"] if rng.random() >= oddness / 2 else []
    for _ in range(rng.randrange(5)):
        id = rng.randrange(1000)
        field = odd(_PLAIN, _ODD_FIELDS)
        fields.append(field.replace("{id}", str(id)).replace("{hex32}", f"{id:032x}")
                      .replace("{hex16}", f"{id:016x}"))  # fmt: skip
    if rng.random() < oddness / 20:
        fields.append("X-Long: " + "l" * rng.choice((2000, 9000, 66_000)))
    if rng.random() < oddness / 40:
        fields += [f"X-{n}: a" for n in range(rng.choice((90, 101, 300)))]
    body = ""
    kind = rng.random()
    if kind < 0.4:
        body = _text(rng)
        length = len(body) if rng.random() >= oddness / 3 else rng.randrange(len(body) + 20)
        fields.append(f"Content-Length: {length}")
    elif kind < 0.6:
        fields.append(odd(["Transfer-Encoding: chunked"], ["Transfer-Encoding: Chunked"]))
        body = _chunks(rng, oddness)
    rng.shuffle(fields)
    start = f"{method} {odd(_TARGETS, _ODD_TARGETS)} {odd(['HTTP/1.1'], _VERSIONS)}"
    lines = [start, *fields, ""]
    if rng.random() < oddness / 4:
        lines.insert(0, "")
    ends = ["\r\n"] * len(lines)
    if rng.random() < oddness / 2:
        ends[rng.randrange(len(ends))] = rng.choice(_ENDS)
    return "".join(line + end for line, end in zip(lines, ends, strict=True)) + body


def _text(rng: random.Random) -> str:
    return rng.choice(("", "hi", "x" * 100, _INNER, "\r\n\r\n", "0\r\n\r\n", "l" * 20_000))


def _chunks(rng: random.Random, oddness: float) -> str:
    pieces = []
    for _ in range(rng.randrange(4)):
        text = _text(rng) or "a"
        size = rng.choice(_CHUNK_SIZES) if rng.random() < oddness else "{0:x}"
        end = rng.choice(_ENDS) if rng.random() < oddness / 4 else "\r\n"
        pieces.append(f"{size.format(len(text))}\r\n{text}{end}")
    trailers = [rng.choice(_TRAILERS) + "\r\n" for _ in range(rng.randrange(3))]
    if rng.random() < oddness / 20:
        trailers.append("X-Trailer: " + "l" * 70_000 + "\r\n")
    end = rng.choice(_ENDS) if rng.random() < oddness / 4 else "\r\n"
    return "".join([*pieces, "0\r\n", *trailers, end])


def _mutate(rng: random.Random, data: bytearray) -> None:
    if not data:
        return
    at = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        data[at] = rng.choice(_SPECIAL) if rng.random() < 0.7 else rng.randrange(256)
    elif kind == 1:
        del data[at : at + rng.choice((1, 2, 10))]
    elif kind == 2:
        data[at:at] = bytes([rng.choice(_SPECIAL)])
    elif kind == 3:
        data[at:at] = data[at : at + rng.choice((1, 5, 40))]
    else:
        data[at:at] = rng.choice((b"\r\n", b"\r\n\r\n", b"\n", b"0\r\n\r\n", _INNER.encode()))


def _reads(rng: random.Random, data: bytes) -> list[bytes]:
    kind = rng.random()
    if kind < 0.35 or len(data) < 2:
        return [data]
    if kind < 0.4 and len(data) < 400:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted({rng.randrange(1, len(data)) for _ in range(rng.choice((1, 1, 2, 4, 8)))})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
