"""A cache that keeps a number of entries."""

from __future__ import annotations

from services.chassis.bounded_cache import BoundedCache


def test_the_entry_that_was_added_first_goes_first() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for number, key in enumerate("abc"):
        cache.keep(key, number)

    assert dict(cache) == {"b": 1, "c": 2}


def test_an_entry_that_is_replaced_takes_no_other_ones_place() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for number, key in enumerate("abab"):
        cache.keep(key, number)

    assert dict(cache) == {"a": 2, "b": 3}
