"""The form of keys: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest

from stellwerk.wire import api_keys

SECRET = "s" * 43


def test_a_key_that_is_written_is_read() -> None:
    assert api_keys.api_key_id(api_keys.api_key("0123456789abcdef", SECRET)) == "0123456789abcdef"
    assert api_keys.service_of_key(api_keys.service_key("api_gateway", SECRET)) == "api_gateway"


def test_a_secret_that_begins_with_an_underscore_is_no_part_of_the_name() -> None:
    assert api_keys.service_of_key(api_keys.service_key("router", "_" * 43)) == "router"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "swk_",
        "swk_0123456789abcdef_" + "s" * 42,
        "swk_0123456789abcdef_" + "s" * 44,
        "swk_0123456789ABCDEF_" + SECRET,
        "swk_0123456789abcdef_" + "é" * 43,
        "sws_Router_" + SECRET,
        "swk_" + "a" * 100_000,
    ],
)
def test_any_other_text_is_no_key(text: str) -> None:
    assert api_keys.api_key_id(text) is None
    assert api_keys.service_of_key(text) is None


def test_the_longest_key_is_within_the_bound() -> None:
    longest = api_keys.service_key("a" * 31, SECRET)

    assert api_keys.service_of_key(longest) == "a" * 31
    assert len(longest) <= api_keys.MAX_LENGTH
