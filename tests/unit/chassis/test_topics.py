"""Topic patterns, against the definition in regular expressions."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.broker.topics import matches

_WORDS = st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=6).map(".".join)
_PATTERNS = st.lists(st.sampled_from(["a", "b", "cc", "*", "#"]), min_size=1, max_size=6).map(
    ".".join
)


def _expression(pattern: str) -> str:
    """Each word with a dot before it; "#" is any number of those."""
    parts = {"*": r"\.[^.]+", "#": r"(\.[^.]+)*"}
    return "".join(parts.get(word, r"\." + re.escape(word)) for word in pattern.split("."))


@given(_PATTERNS, _WORDS)
def test_a_pattern_matches_what_its_expression_matches(pattern: str, key: str) -> None:
    assert matches(pattern, key) == bool(re.fullmatch(_expression(pattern), "." + key))


def test_many_hashes_cost_no_exponential_time() -> None:
    assert not matches(".".join(["#", "a"] * 200), ".".join(["a"] * 199 + ["b"]))
