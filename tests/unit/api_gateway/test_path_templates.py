"""The path template grammar, and what a variable takes out of a path."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.routing import path_templates
from stellwerk.wire.errors import InvalidInput


def test_a_literal_template_has_its_segments() -> None:
    template = path_templates.parse("/v1/models")

    assert template.segments == ("v1", "models")
    assert template.variables == ()
    assert template.verb == ""


def test_a_bare_variable_takes_one_segment() -> None:
    template = path_templates.parse("/v2/models/{name}/ready")

    assert template.segments == ("v2", "models", "*", "ready")
    assert template.capture([b"v2", b"models", b"iris", b"ready"]) == {"name": "iris"}


def test_a_variable_of_many_segments_takes_them_all() -> None:
    template = path_templates.parse("/v1/{alias.name=buckets/*/models/*}/uploads:finish")

    assert template.segments == ("v1", "buckets", "*", "models", "*", "uploads")
    assert template.verb == "finish"
    path = [b"v1", b"buckets", b"b", b"models", b"m", b"uploads"]
    assert template.capture(path) == {"alias.name": "buckets/b/models/m"}


def test_two_stars_take_none_or_many() -> None:
    template = path_templates.parse("/files/{path=**}")

    assert template.capture([b"files"]) == {"path": ""}
    assert template.capture([b"files", b"a", b"b"]) == {"path": "a/b"}


def test_a_verb_after_a_brace_and_after_a_literal() -> None:
    assert path_templates.parse("/v1/tokens:issue").verb == "issue"
    assert path_templates.parse("/v1/{name=buckets/*}:predict").verb == "predict"
    assert path_templates.parse("/v1/{name}:predict").segments == ("v1", "*")


def test_a_trailing_slash_is_an_empty_segment() -> None:
    assert path_templates.parse("/v2/").segments == ("v2", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1/x",
        "/v1//x",
        "/v1/{a",
        "/v1/a}",
        "/v1/{a{b}}",
        "/v1/{a=**}/b",
        "/v1/**/b",
        "/v1/{a=b//c}",
        "/v1/{1a}",
        "/v1/{a}b",
        "/v1/{a}/{a}",
        "/v1/{a.}",
        "/v1/x:",
        "/v1/a*",
        "/v1/:verb",
    ],
)
def test_what_does_not_follow_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(path_templates.BadTemplate):
        path_templates.parse(text)


def test_one_segment_is_decoded_fully_and_many_keep_the_slash() -> None:
    single, multi = path_templates.parse("/{a}"), path_templates.parse("/{a=x/*}")

    assert single.capture([b"p%2Fq%20%C3%BC"]) == {"a": "p/q ü"}
    assert multi.capture([b"x", b"p%2Fq%2f%20%3A"]) == {"a": "x/p%2Fq%2f :"}


@pytest.mark.parametrize("raw", [b"%", b"a%2", b"%zz", b"%ff", b"%C3"])
def test_bad_escapes_are_invalid_input(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        path_templates.unescape(raw, keep_slash=False)


@given(st.text(min_size=1))
def test_what_was_quoted_comes_back(text: str) -> None:
    assert path_templates.unescape(quote(text, safe="").encode(), keep_slash=False) == text


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_segments_of_a_resource_name_survive(parts: list[str]) -> None:
    template = path_templates.parse("/{name=**}")
    path = [quote(part, safe="").encode() for part in parts]

    name = template.capture(path)["name"]

    assert name.count("/") == len(parts) - 1


@given(st.text(alphabet="/{}=*:ab.", max_size=20))
def test_parsing_any_text_gives_a_template_or_bad_template(text: str) -> None:
    try:
        template = path_templates.parse(text)
    except path_templates.BadTemplate:
        return
    assert "**" not in template.segments[:-1]
    assert all(0 <= v.start < v.end <= len(template.segments) for v in template.variables)
