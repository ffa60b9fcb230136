"""Page tokens belong to the listing they came from and to no other."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stellwerk.wire import paging
from stellwerk.wire.errors import InvalidInput


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_a_token_leads_back_to_its_place(listing: str, position: str) -> None:
    token = paging.encode(listing, position)

    assert paging.decode(listing, token) == position
    assert token.isascii()
    assert "=" not in token


def test_no_token_is_the_first_page() -> None:
    assert paging.decode("models", "") == ""


@given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_a_token_of_another_listing_is_refused(mine: str, other: str, position: str) -> None:
    if mine == other:
        return
    with pytest.raises(InvalidInput):
        paging.decode(mine, paging.encode(other, position))


@given(st.text(min_size=1, max_size=60))
def test_an_invented_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        paging.decode("models", token)


@example(11, "J")
@given(st.integers(0, 30), st.characters(max_codepoint=126))
def test_a_token_that_was_changed_is_refused(at: int, letter: str) -> None:
    token = paging.encode("models", "iris")
    changed = token[:at] + letter + token[at + 1 :]
    if changed == token:
        return
    with pytest.raises(InvalidInput):
        paging.decode("models", changed)


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (5000, 1000)])
def test_a_page_has_a_size_between_one_and_a_thousand(asked: int, given: int) -> None:
    assert paging.page_size(asked) == given


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidInput):
        paging.page_size(-1)
