"""Parses the filter of listings: terms of the form field = "value" joined by AND, a trailing * for
any ending. Pure.

Inside the quotes \\" is a quote, \\\\ a backslash and \\* a star. Values are compared, never
interpreted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stellwerk.wire.errors import InvalidInput

# Characters of a filter and terms in it; bounds the work of one listing.
MAX_LENGTH = 4096
MAX_TERMS = 32

# Unambiguous at every character, so that matching takes linear time whatever the caller sends.
_TERM = re.compile(
    r"""\s*(?P<field>name|format|labels\.(?P<label>[A-Za-z0-9][A-Za-z0-9._/-]{0,62}))"""
    r"""\s*=\s*"(?P<value>(?:[^"\\]|\\["\\*])*)"\s*"""
)
_PIECE = re.compile(r'\\(["\\*])|(\*)|([^\\*])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: `field` is "name", "format" or "label", `label` the key of a label; with
    `prefix` the value is a beginning.
    """

    field: str
    label: str
    value: str
    prefix: bool

    def holds(self, value: str | None) -> bool:
        """Returns whether a value meets the condition; None stands for a missing label."""
        if value is None:
            return False
        return value.startswith(self.value) if self.prefix else value == self.value


def parse(text: str) -> tuple[Term, ...]:
    """Returns the terms of a filter, none for an empty filter. Raises InvalidInput with the
    position where the text leaves the grammar.
    """
    if not text.strip():
        return ()
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"filter may have {MAX_LENGTH} characters", field="filter")
    terms: list[Term] = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None:
            raise _wrong(position)
        terms.append(_term(match))
        position = match.end()
        if position == len(text):
            break
        if len(terms) == MAX_TERMS:
            raise InvalidInput(f"filter may have {MAX_TERMS} terms", field="filter")
        # The pattern of the term took the blank before AND; the one after it is required here.
        if (
            text[position : position + 3] != "AND"
            or not text[position + 3 : position + 4].isspace()
        ):
            raise _wrong(position)
        position += 3
    return tuple(terms)


def _wrong(position: int) -> InvalidInput:
    return InvalidInput(
        'filter must be terms such as name = "iris*" or labels.team = "blue", joined by AND; '
        f"it stops being one at character {position + 1}",
        field="filter",
        position=position + 1,
    )


def _term(match: re.Match[str]) -> Term:
    value: list[str] = []
    prefix = False
    quoted = match["value"]
    for piece in _PIECE.finditer(quoted):
        escaped, star, plain = piece.groups()
        if star and piece.end() != len(quoted):
            raise InvalidInput(
                "a * stands only at the end of a filter's value; write \\* for the character",
                field="filter",
            )
        prefix = bool(star)
        value.append(escaped or plain or "")
    label = match["label"] or ""
    return Term("label" if label else match["field"], label, "".join(value), prefix)
