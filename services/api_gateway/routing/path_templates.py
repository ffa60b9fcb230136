"""Parses the path templates of google.api.http and reads their variables from a path. Pure.

A path is split while it is still percent-encoded, so an encoded slash never makes a segment
(google/api/http.proto).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stellwerk.wire.errors import InvalidInput

ANY = "*"
REST = "**"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A literal segment: it has no character of the template grammar.
_LITERAL = re.compile(r"[^*{}/:=]+")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")


class BadTemplate(Exception):
    """Says that a template does not follow the grammar. Raised at start, never by a request."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A field that takes the path's segments [start, end), or with `rest` all from start on."""

    field: str
    start: int
    end: int
    rest: bool
    multi: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `segments` holds literals, "*" and, only at the end, "**"."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    def capture(self, path: Sequence[bytes]) -> dict[str, str]:
        """Returns the variables' values, by field path, in a path that the template matches.

        Raises InvalidInput for a bad percent escape.
        """
        values = {}
        for variable in self.variables:
            stop = len(path) if variable.rest else variable.end
            raw = b"/".join(path[variable.start : stop])
            values[variable.field] = unescape(raw, keep_slash=variable.multi)
        return values


def unescape(raw: bytes, *, keep_slash: bool) -> str:
    """Returns percent-decoded text of a path. Raises InvalidInput.

    With `keep_slash`, for a variable of many segments, %2F stays: its value can be split again.
    """

    def decoded(match: re.Match[bytes]) -> bytes:
        digits = match.group(1)
        if digits is None:
            raise InvalidInput(
                "the path holds a '%' without two hexadecimal digits after it; write %25 for a"
                " percent"
            )
        byte = bytes([int(digits, 16)])
        return match.group(0) if keep_slash and byte == b"/" else byte

    data = _ESCAPE.sub(decoded, raw) if b"%" in raw else raw
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise InvalidInput("the path is not UTF-8 after percent-decoding") from exc


def parse(text: str) -> Template:
    """Parses a template such as `/v1/{name=buckets/*}:verb`. Raises BadTemplate."""
    if not text.startswith("/"):
        raise BadTemplate(f"{text}: a template begins with '/'")
    path, verb = _split_verb(text)
    segments: list[str] = []
    variables: list[Variable] = []
    for piece in _pieces(path[1:], text):
        if piece.startswith("{"):
            variables.append(_variable(piece, len(segments), segments, text))
        else:
            segments.append(_segment(piece, text))
    if REST in segments[:-1]:
        raise BadTemplate(f"{text}: '**' must come last")
    fields = [variable.field for variable in variables]
    if len(set(fields)) != len(fields):
        raise BadTemplate(f"{text}: a field is bound twice")
    # Only the last segment may be empty, as in "/v2/".
    if "" in segments[:-1] or (verb and segments[-1] == ""):
        raise BadTemplate(f"{text}: an empty segment")
    return Template(text, tuple(segments), tuple(variables), verb)


def _split_verb(text: str) -> tuple[str, str]:
    """Splits the verb off: the word after the last ':' outside braces and after the last '/'."""
    tail_from = max(text.rfind("/"), text.rfind("}")) + 1
    colon = text.rfind(":", max(tail_from - 1, 0))
    if colon < 0:
        return text, ""
    verb = text[colon + 1 :]
    if not _LITERAL.fullmatch(verb):
        raise BadTemplate(f"{text}: a verb is one plain word after ':'")
    return text[:colon], verb


def _pieces(path: str, text: str) -> list[str]:
    """Splits the path at slashes outside braces."""
    pieces, depth, current = [], 0, ""
    for character in path:
        depth += (character == "{") - (character == "}")
        if depth not in (0, 1):
            raise BadTemplate(f"{text}: braces do not match or are nested")
        if character == "/" and depth == 0:
            pieces.append(current)
            current = ""
        else:
            current += character
    if depth:
        raise BadTemplate(f"{text}: a brace is not closed")
    return [*pieces, current]


def _variable(piece: str, start: int, segments: list[str], text: str) -> Variable:
    if not piece.endswith("}"):
        raise BadTemplate(f"{text}: a variable fills its whole segment")
    field, equals, pattern = piece[1:-1].partition("=")
    if not all(_IDENTIFIER.fullmatch(part) for part in field.split(".")):
        raise BadTemplate(f"{text}: '{field}' is not a field path")
    inner = [_segment(part, text) for part in pattern.split("/")] if equals else [ANY]
    if "" in inner:
        raise BadTemplate(f"{text}: an empty segment")
    segments += inner
    return Variable(
        field,
        start,
        start + len(inner),
        rest=inner[-1] == REST,
        multi=len(inner) > 1 or inner[-1] == REST,
    )


def _segment(piece: str, text: str) -> str:
    if piece in (ANY, REST, "") or _LITERAL.fullmatch(piece):
        return piece
    raise BadTemplate(f"{text}: '{piece}' is not a segment")
