"""The filter grammar: what it takes, what it refuses, and that a value is only ever a value."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.repository.catalogue import filters
from services.repository.catalogue.documents import condition, conditions
from services.repository.catalogue.filters import Term
from stellwerk.wire.errors import InvalidInput

FIELDS = st.sampled_from(["name", "format", "labels.team", "labels.a.b/c-d"])


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'


def test_terms_are_read_as_written() -> None:
    text = ' name = "iris*" AND labels.team.x="blue"  AND  format= "onnx" '

    assert filters.parse(text) == (
        Term("name", "", "iris", True),
        Term("label", "team.x", "blue", False),
        Term("format", "", "onnx", False),
    )
    assert filters.parse("  ") == ()


@given(st.lists(st.tuples(FIELDS, st.text(max_size=40), st.booleans()), min_size=1, max_size=5))
def test_any_value_survives_quoting(terms: list[tuple[str, str, bool]]) -> None:
    text = " AND ".join(
        f'{field} = {quoted(value)[:-1]}{"*" if prefix else ""}"' for field, value, prefix in terms
    )

    assert [(term.value, term.prefix) for term in filters.parse(text)] == [
        (value, p) for _, value, p in terms
    ]


@given(st.text(max_size=200))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        filters.parse(text)
    except InvalidInput as error:
        assert error.metadata["field"] == "filter"


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "name =",
        'name = "a',
        "name = a",
        "name = 'a'",
        'name == "a"',
        'name > "a"',
        'size = "3"',
        'labels = "x"',
        'labels. = "x"',
        'labels.$where = "x"',
        'name = "a" OR name = "b"',
        'name = "a" AND',
        'name = "a" ANDname = "b"',
        'name = "a" name = "b"',
        'AND name = "a"',
        'name = "a*b"',
        'name = "**"',
        'name = "\\n"',
        '{"$where": "1"}',
        'name = "a"; drop',
        " AND ".join(['name = "a"'] * 33),
        f'name = "{"a" * 5000}"',
    ],
)
def test_what_is_outside_of_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        filters.parse(text)


@pytest.mark.parametrize(
    "text", ['name = "' + "\\" * 4000, "labels." + "a" * 4000, " " * 4000 + "x", '"' * 4000]
)
def test_a_hostile_filter_is_refused_quickly(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidInput):
        filters.parse(text)
    assert time.perf_counter() - started < 0.5


@given(FIELDS, st.text(max_size=20), st.booleans())
def test_a_query_holds_the_value_only_where_values_are_compared(
    field: str, value: str, prefix: bool
) -> None:
    (term,) = filters.parse(f'{field} = {quoted(value)[:-1]}{"*" if prefix else ""}"')
    query = condition(term)

    def operators(node: object) -> set[str]:
        if not isinstance(node, dict):
            return set()
        return {k for k in node if k.startswith("$")} | {
            o for v in node.values() for o in operators(v)
        }

    assert operators(query) <= {"$eq", "$gte", "$lt", "$elemMatch"}
    assert conditions([]) == {}


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_prefix_is_the_range_of_texts_that_begin_with_it(prefix: str, ending: str) -> None:
    wanted = condition(Term("name", "", prefix, True))["id"]

    def inside(text: str) -> bool:
        return wanted["$gte"].encode() <= text.encode() < wanted["$lt"].encode()

    if "\U0010ffff" not in prefix + ending:
        assert inside(prefix + ending)
        assert inside(ending) == Term("name", "", prefix, True).holds(ending)
