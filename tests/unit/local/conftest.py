"""A database for `stellwerk up` that is there and that no stand-in asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.mongo import mongo


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of the database, with a password in it."""
    with mongo() as url:
        yield url
