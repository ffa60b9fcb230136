"""`stellwerk up` with the database and the broker that it starts itself; the five services are
stand-ins.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.backing import mongod as mongod_module
from services.local.backing import rabbitmq as rabbitmq_module
from services.local.backing.mongod import Mongod
from services.local.backing.rabbitmq import RabbitMQ
from tests.fakes.platform.up import Start, Up, starter, until

needs_mongod = pytest.mark.skipif(
    not mongod_module.installed(), reason="there is no mongod on this machine"
)
needs_rabbitmq = pytest.mark.skipif(
    not rabbitmq_module.installed(), reason="RabbitMQ is not installed on this machine"
)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async for begin in starter(tmp_path):
        yield begin


@needs_mongod
async def test_a_killed_database_comes_back_where_it_was(start: Start) -> None:
    platform = await start("--broker", "pull")
    before = await platform.ready()
    url = _secret(platform, "mongo-url")

    os.kill(before["pids"]["mongod"], signal.SIGKILL)

    after = await until(lambda: _renewed(platform, before["pids"]["mongod"], "mongod"))
    assert before["mongo"].startswith("MongoDB ") and before["mongo"].endswith("(our own)")
    assert {name for name in before["pids"] if before["pids"][name] != after[name]} == {"mongod"}
    assert _secret(platform, "mongo-url") == url


@needs_mongod
@needs_rabbitmq
async def test_where_rabbitmq_is_installed_a_private_node_is_used(start: Start) -> None:
    platform = await start()

    ready = await platform.ready()

    assert ready["broker"].startswith("RabbitMQ ") and ready["broker"].endswith("(a private node)")
    assert _secret(platform, "broker-url").startswith("amqp://stellwerk:")
    assert {"mongod", "rabbitmq"} <= set(ready["pids"])


@needs_mongod
@needs_rabbitmq
async def test_a_rabbitmq_that_does_not_start_is_replaced_by_the_built_in_dispatch(
    start: Start, tmp_path: Path
) -> None:
    # Erlang refuses a cookie that others can read.
    cookie = tmp_path / "data" / "rabbitmq" / "home" / ".erlang.cookie"
    cookie.parent.mkdir(parents=True)
    cookie.write_text("x" * 20)
    cookie.chmod(0o644)

    platform = await start()
    ready = await platform.ready()

    assert ready["broker"] == "pull dispatch (the installed RabbitMQ did not start)"
    assert _secret(platform, "broker-url") == "pull"
    assert "rabbitmq" not in ready["pids"]


@needs_mongod
async def test_a_database_that_cannot_start_ends_everything_with_one_sentence(
    start: Start, tmp_path: Path
) -> None:
    data = tmp_path / "data" / "mongod" / "data"
    data.mkdir(parents=True)
    (data / "storage.bson").write_text("this is no database")

    code, out, err = await (await start("--broker", "pull")).ended()

    assert (code, out) == (1, "")
    assert "stellwerk: mongod did not start; its log is " in err


@needs_mongod
async def test_the_first_start_shows_no_error(start: Start) -> None:
    platform = await start("--broker", "pull")
    await platform.ready()

    platform.process.send_signal(signal.SIGTERM)
    code, _, err = await platform.ended()

    assert code == 0
    assert [line for line in err.splitlines() if " ready after " not in line] == ["stopping …"]


@needs_mongod
@needs_rabbitmq
@pytest.mark.parametrize("part", ["mongod/mongod", "rabbitmq/rabbitmq"])
async def test_a_start_that_is_cut_short_ends_soon_and_the_next_one_succeeds(
    start: Start, part: str
) -> None:
    platform = await start()
    await until((platform.data_dir / f"{part}.pid.json").exists)

    began = time.monotonic()
    platform.process.send_signal(signal.SIGINT)
    code, _, err = await platform.ended()
    seconds = time.monotonic() - began

    assert (code, err.splitlines()[-1]) == (0, "stopping …")
    # Twice what it takes, for a machine that is busy; the servers alone would need ten.
    assert seconds < 6
    ready = await (await start()).ready()
    assert ready["broker"].endswith("(a private node)") and ready["mongo"].endswith("(our own)")


@needs_mongod
async def test_a_wrong_password_of_a_database_is_named_with_its_option(
    start: Start, mongod_server: Mongod
) -> None:
    url = f"mongodb://stellwerk:wrong@127.0.0.1:{mongod_server.port}/?authSource=admin"

    code, out, err = await (await start("--broker", "pull", "--mongo-url", url)).ended()

    assert (code, out) == (1, "")
    assert err == (
        f"stellwerk: MongoDB at 127.0.0.1:{mongod_server.port} refuses the user or the password;"
        " correct --mongo-url\n"
    )


@needs_mongod
@needs_rabbitmq
@pytest.mark.parametrize(
    ("login", "path", "problem"),
    [
        ("stellwerk:wrong", "%2F", "refuses the user or the password"),
        ("stellwerk:{}", "nowhere", "refuses us (NOT_ALLOWED - vhost nowhere not found)"),
    ],
)
async def test_a_broker_that_refuses_us_is_named_with_its_option(
    start: Start, mongod: str, rabbitmq_server: RabbitMQ, login: str, path: str, problem: str
) -> None:
    password = rabbitmq_server.url.partition("@")[0].rpartition(":")[2]
    place = f"127.0.0.1:{rabbitmq_server.port}"
    broker = f"amqp://{login.format(password)}@{place}/{path}"

    code, out, err = await (await start("--broker", broker, "--mongo-url", mongod)).ended()

    assert (code, out) == (1, "")
    assert err == f"stellwerk: RabbitMQ at {place} {problem}; correct --broker\n"


@needs_mongod
@needs_rabbitmq
async def test_servers_that_run_already_are_used_as_they_are(
    start: Start, mongod: str, rabbitmq: str
) -> None:
    platform = await start("--broker", rabbitmq, "--mongo-url", mongod)

    ready = await platform.ready()

    assert ready["broker"].startswith("RabbitMQ at 127.0.0.1:")
    assert not {"mongod", "rabbitmq"} & set(ready["pids"])


def _secret(platform: Up, name: str) -> str:
    return (platform.data_dir / "secrets" / name).read_text()


def _renewed(platform: Up, pid: int, name: str) -> dict[str, int] | None:
    pids: dict[str, int] = platform.report()["pids"]
    return pids if pids.get(name) not in (pid, None) else None
