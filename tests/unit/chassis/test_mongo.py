"""A database that is away is one line that names it and says what to do."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from services.chassis.config import ConfigError
from services.chassis.mongo import MongoWatch, connect
from tests.fakes.eventually import eventually


async def test_an_unreachable_mongodb_is_logged_once_with_its_address() -> None:
    client = connect("mongodb://canary:canary@127.0.0.1:1,127.0.0.1:2/", "test")
    watch = MongoWatch(client)
    with capture_logs() as lines:
        watching = asyncio.create_task(watch.run())
        await eventually(lambda: bool(lines))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await client.close()

    (line,) = lines
    assert (line["log_level"], line["event"]) == ("error", "mongodb_unusable")
    assert line["mongodb"] == "127.0.0.1:1, 127.0.0.1:2"
    assert line["problem"] == watch.problem
    assert "start it, or set STELLWERK_MONGO_URL" in watch.problem
    assert "canary" not in str(line)


@pytest.mark.parametrize(
    "url", ["http://host", "mongodb://", "mongodb://canary:p/w@host", "mongodb://host:port"]
)
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="STELLWERK_MONGO_URL: must be mongodb://") as caught:
        connect(url, "test")

    assert "canary" not in str(caught.value)
