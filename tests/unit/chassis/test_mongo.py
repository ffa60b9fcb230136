"""A database that is away is one line that names it and says what to do."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.config import ConfigError
from services.chassis.mongo import MongoWatch, connect
from tests.fakes.eventually import eventually
from tests.fakes.log import FakeLog


async def test_an_unreachable_mongodb_is_logged_once_with_its_address() -> None:
    client = connect("mongodb://canary:canary@127.0.0.1:1,127.0.0.1:2/", "test")
    log = FakeLog()
    watch = MongoWatch(client, log)
    watching = asyncio.create_task(watch.run())
    await eventually(lambda: bool(log.lines))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await client.close()

    ((event, fields),) = log.lines
    assert log.errors == [event] == ["mongodb_unusable"]
    assert fields == {"mongodb": "127.0.0.1:1, 127.0.0.1:2", "problem": watch.problem}
    assert "start it, or set STELLWERK_MONGO_URL" in watch.problem
    assert "canary" not in str(log.lines)


@pytest.mark.parametrize(
    "url", ["http://host", "mongodb://", "mongodb://canary:p/w@host", "mongodb://host:port"]
)
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="STELLWERK_MONGO_URL: must be mongodb://") as caught:
        connect(url, "test")

    assert "canary" not in str(caught.value)
