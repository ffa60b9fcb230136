"""The differences that are allowed, each with its reason. What has no row here is a finding.

Both servers agree on every request before an allowed difference. A rule that lets the gateway see a
request otherwise than another server would be a door for smuggled requests: there is none but for
trailers, which uvicorn takes for headers, and what does not change a request's meaning.
"""

from __future__ import annotations

import re
from dataclasses import replace

from soak.http_streams.outcomes import Outcome, Seen, joined

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
_CODING = b"transfer-encoding"
UPGRADE = "an upgrade is ignored"
_TIMEOUTS = (b"x-request-timeout", b"grpc-timeout")

# Rules of the gateway's door and protocol, by name.
OWN: dict[str, str] = {
    "one valid Host": "HTTP/1.1 needs it (RFC 9112, 3.2); uvicorn passes none and several on",
    "HTTP/1.0 and 1.1": "other versions are refused; the others take some of them for HTTP/1.1",
    "single fields": "Authorization and Content-Type given twice are refused, not one preferred",
    "chunked alone": "any other transfer coding is refused, also before chunked",
    "a hundred headers": "more are refused",
    "known codings": "a Content-Encoding other than gzip, deflate and identity is refused",
    "a timeout is a number": "the gateway's own headers for deadlines are checked",
    "refused before its body": "a malformed head is answered before its body has arrived",
    "trailers are no headers": "RFC 9110, 6.5.1; uvicorn adds them to the list that it gave away",
    "space behind a value": "is no part of the value (RFC 9110, 5.5); uvicorn leaves it there",
    "the case of a coding": "h11 writes the name of a transfer coding in lower case",
    "PRI is HTTP/2's": "the parser waits for the rest of HTTP/2's preface; h11 takes any method",
    UPGRADE: "RFC 9110, 7.8; uvicorn takes the body for another protocol's bytes",
    "nothing follows a close": "RFC 9112, 9.6: bytes behind the last request are dropped; uvicorn"
    " and h11 parse them, or say that they should not be there",
    "answers before a refusal": "requests before the bytes that are none are answered first;"
    " uvicorn sends 400 at once and closes over their answers",
    "a head is bounded": "64 KiB, however it arrives; uvicorn has no bound, and h11's counts"
    " otherwise",
    "chunk lines and trailers are bounded": "64 KiB without a byte of body; uvicorn has no bound",
}  # fmt: skip

# Refusals of the gateway's parser (llhttp), by its first words, of bytes that h11 takes.
STRICTER: dict[str, str] = {
    "Invalid method encountered": "methods that nobody registered, and what follows an early end",
    "Expected HTTP/2 Connection Preface": "PRI, which only HTTP/2 sends",
    "Expected space after method": "as above, seen later",
    "Expected HTTP/": "a target with a space in it, which h11 refuses only with a whole line",
    "Unexpected start char in url": "targets that are no path, URL or asterisk",
    "Unexpected char in url": "the same",
    "Invalid char in url": "characters that no target may have (RFC 9112, 3.2)",
    "Invalid characters in url": "the same",
    "InvalidTarget": "targets without a path, or not of ASCII",
    "Expected CRLF after version": "a bare CR or LF",
    "Expected dot": "a version in another form; h11 waits for the line's end before it looks",
    "Invalid HTTP version": "versions that are none of 0.9, 1.0, 1.1 and 2.0",
    "Invalid major version": "the same",
    "Invalid minor version": "the same",
    "Missing expected CR after header value": "a bare LF (RFC 9112, 2.2 allows either)",
    "Missing expected LF after header value": "a bare CR",
    "Expected LF after headers": "a bare CR",
    "Expected LF after CR": "a bare CR",
    "Expected CRLF": "a bare CR or LF behind a chunk's size",
    "Unexpected whitespace after header value": "folded fields (RFC 9112, 5.2 says to refuse them)",
    "Unexpected space after start line": "a folded line in place of the first field",
    "Invalid header value char": "control characters; h11 waits for the head's end before it looks",
    "Invalid header field char": "characters that no name may have; h11 looks later",
    "Invalid header token": "the same",
    "Content-Length can't be present with Transfer-Encoding": "both lengths: h11 takes the chunks,"
    " as RFC 9112, 6.3 allows; to refuse is safer where a proxy stands before",
    "Transfer-Encoding can't be present with Content-Length": "the same",
    "Duplicate Content-Length": "two lengths, even if they agree",
    "Content-Length overflow": "lengths beyond 64 bits",
    "Invalid character in Content-Length": "lengths as lists; h11 takes lists of one value",
    "Empty Content-Length": "no number; h11 looks at the head's end",
    "Request has invalid `Transfer-Encoding`": "a tab behind chunked, or a coding that is not last",
    "Invalid `Transfer-Encoding` header value": "chunked given twice, or not last",
    "Expected LF after chunk size": "a bare CR",
    "Missing expected CR after chunk size": "a bare LF",
    "Invalid character in chunk size": "white space around a size (RFC 9112, 7.1 has none)",
    "Chunk size overflow": "sizes beyond 64 bits; h11 takes twenty digits",
    "Invalid character in chunk extensions": "characters that no extension may have",
}

# Refusals of h11, by the beginning of its words, where the gateway takes the bytes or the door
# refuses one request and goes on.
LAXER: dict[str, str] = {
    "Missing mandatory Host": "the door refuses the request, not the connection",
    "Found multiple Host": "the same",
    "Only Transfer-Encoding: chunked": "the same",
    "no request line received": "empty lines before a request are passed over (RFC 9112, 2.2)",
    "illegal request line": "several spaces are one (RFC 9112, 3); without a version the door"
    " refuses",
}


def reasons() -> dict[str, str]:
    """Returns the reason of each rule, by the name under which it explains differences."""
    return {
        **OWN,
        **{f"llhttp: {words}": reason for words, reason in STRICTER.items()},
        **{f"h11: {words}": reason for words, reason in LAXER.items()},
    }


def head_lines(ours: Seen, theirs: Seen) -> tuple[tuple[bytes, bytes], ...] | None:
    """Returns the header lines of a request, without trailers, if both servers saw the same."""
    if (ours.method, ours.path, ours.query) != (theirs.method, theirs.path, theirs.query):
        return None
    lines = tuple((name, value.rstrip(b" \t")) for name, value in theirs.lines)
    wanted = _lower_coding(ours.fields)
    for count in range(len(lines), -1, -1):
        if _lower_coding(joined(lines[:count])) == wanted:
            return lines[:count]
    return None


def _lower_coding(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Returns the fields with transfer codings in lower case, as h11 writes them."""
    if _CODING not in fields:
        return fields
    return {**fields, _CODING: fields[_CODING].lower()}


def refused_by_door(ours: Seen, theirs: Seen) -> str:
    """Returns the rule by which the door refused a head that another server took."""
    lines = head_lines(ours, theirs)
    if lines is None:
        return ""
    names = [name for name, _ in lines]
    hosts = [value for name, value in lines if name == b"host"]
    if len(names) > 100 and "more headers" in ours.refused:
        return "a hundred headers"
    if "HTTP/1.1 or HTTP/1.0" in ours.refused and ours.version not in ("1.0", "1.1"):
        return "HTTP/1.0 and 1.1"
    if "Host" in ours.refused and not (len(hosts) == 1 and _HOST.fullmatch(hosts[0].strip())):
        return "one valid Host"
    if "given twice" in ours.refused and (
        names.count(b"authorization") > 1 or names.count(b"content-type") > 1
    ):
        return "single fields"
    coding = ours.fields.get(b"transfer-encoding", b"chunked")
    if "Transfer-Encoding" in ours.refused and coding.lower() != b"chunked":
        return "chunked alone"
    if "coding that" in ours.refused and ours.fields.get(b"content-encoding", b"") != b"identity":
        return "known codings"
    if "timeout" in ours.refused and any(name in _TIMEOUTS for name in names):
        return "a timeout is a number"
    return ""


def seen_differently(ours: Seen, theirs: Seen, name: str) -> str:
    """Returns the rule by which two servers saw a request differently."""
    if name == "h11":
        lowered = replace(ours, fields=_lower_coding(ours.fields))
        return "the case of a coding" if lowered.same(theirs) else ""
    lines = head_lines(ours, theirs)
    if lines is None:
        return ""
    if upgrades(ours):
        return UPGRADE
    if ours.body != theirs.body:
        return ""
    return "trailers are no headers" if len(lines) < len(theirs.lines) else "space behind a value"


def ended_differently(
    own: Outcome, other: Outcome, common: int, ends: tuple[str, str], reason: str, name: str
) -> str:
    """Returns the rule by which two connections ended differently behind `common` requests.

    `ends` says how, `reason` why the gateway's parser refused.
    """
    if "headers are too large" in reason:
        return "a head is bounded"
    if reason == "Invalid HTTP request received.":
        return "chunk lines and trailers are bounded"
    last = own.seen[common] if len(own.seen) > common else None
    if name == "uvicorn":
        return _ended_other_than_uvicorn(own, other, common, ends)
    if len(other.seen) > common and other.seen[common].method == "PRI":
        return "PRI is HTTP/2's"
    laxer = next((f"h11: {words}" for words in LAXER if other.reason.startswith(words)), "")
    if last is not None and last.refused and not laxer:
        return "refused before its body"
    if ends[0] == "closed" and _closes(own) and len(own.seen) == common:
        return "nothing follows a close"
    if other.reason and len(own.seen) >= len(other.seen):
        return laxer
    if ends[0] == "refused":
        return next((f"llhttp: {words}" for words in STRICTER if reason.startswith(words)), "")
    return ""


def _ended_other_than_uvicorn(
    own: Outcome, other: Outcome, common: int, ends: tuple[str, str]
) -> str:
    if any(upgrades(seen) for seen in (*own.seen, *other.seen)):
        return UPGRADE
    if ends == ("refused", "refused") and len(own.seen) > common:
        return "answers before a refusal"
    if ends[0] == "closed" and _closes(own):
        return "nothing follows a close"
    if len(own.seen) == common + 1 and own.seen[common].refused:
        return "refused before its body"
    return ""


def _closes(own: Outcome) -> bool:
    """Returns whether the last request ends its connection."""
    if not own.seen:
        return False
    last = own.seen[-1]
    return last.version != "1.1" or any(
        b"close" in last.fields.get(name, b"").lower()
        for name in (b"connection", b"proxy-connection")
    )


def upgrades(seen: Seen) -> bool:
    """Returns whether a request offers to go on with another protocol."""
    return seen.method == "CONNECT" or b"upgrade" in seen.fields.get(b"connection", b"").lower()
