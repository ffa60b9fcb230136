"""`stellwerk up` on other machines than ours, and with services that refuse their settings."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from services.local.processes.supervised import CONFIGURATION_ERROR
from tests.fakes.platform.up import Start, starter, until


@pytest.fixture
async def start(tmp_path: Path, database: str) -> AsyncIterator[Start]:
    async for begin in starter(tmp_path, "--broker", "pull", "--mongo-url", database, "--verbose"):
        yield begin


async def test_a_service_that_refuses_its_settings_ends_the_start_with_its_sentence(
    start: Start, tmp_path: Path
) -> None:
    crash = tmp_path / "data" / "run" / "router.crash"
    crash.parent.mkdir(parents=True)
    crash.write_text(f"{CONFIGURATION_ERROR} STELLWERK_LISTEN: cannot be bound")

    code, out, err = await (await start()).ended()

    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "stellwerk: router cannot start: STELLWERK_LISTEN: cannot be bound"
    )


async def test_a_running_platform_outlives_a_service_that_refuses_its_settings(
    start: Start,
) -> None:
    platform = await start()
    pids = (await platform.ready())["pids"]
    crash = platform.data_dir / "run" / "router.crash"
    crash.write_text(f"{CONFIGURATION_ERROR} a secret cannot be read")

    os.kill(pids["router"], signal.SIGKILL)
    await platform.said("process_ended")
    ended = await platform.said("process_ended")
    crash.unlink()

    assert ended["how"] == f"exit code {CONFIGURATION_ERROR}"
    await until(lambda: "router" in platform.report()["pids"])


async def test_proxies_do_not_stand_between_processes_of_this_machine(start: Start) -> None:
    nowhere = "http://127.0.0.1:1"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), nowhere)
    platform = await start(**proxies, no_proxy="intern.example")

    pids = (await platform.ready())["pids"]

    told = psutil.Process(pids["router"]).environ()
    assert told["http_proxy"] == nowhere
    assert told["no_proxy"].split(",")[:2] == ["intern.example", "127.0.0.1"]


async def test_a_bare_account_is_enough(start: Start) -> None:
    platform = await start(
        HOME="/nonexistent", TMPDIR="/nonexistent", PATH="/nonexistent", LC_ALL="C", LANG="C"
    )

    assert (await platform.ready())["ready"] is True
