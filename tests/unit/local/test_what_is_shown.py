"""`stellwerk up` is quiet until it is ready, then says where everything is; logs go to files."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local import ports
from services.local.ready_report import ReadyReport
from tests.fakes.platform.up import ROOT, Start, command, environment, starter, until


@pytest.fixture
async def start(tmp_path: Path, database: str) -> AsyncIterator[Start]:
    async for begin in starter(tmp_path, "--broker", "pull", "--mongo-url", database):
        yield begin


async def test_a_program_gets_json_and_standard_error_a_line_for_each_part(start: Start) -> None:
    platform = await start()
    ready = await platform.ready()

    platform.process.send_signal(signal.SIGTERM)
    _, out, err = await platform.ended()

    *lines, last = err.splitlines()
    parts = [line.partition(" is ready after ")[0] for line in lines[:-1]]
    assert out == ""
    assert set(parts) <= set(ready["pids"])
    assert last == "stopping …"
    assert lines[-1].startswith("the platform is ready after ")
    assert ready["http"] in lines[-1] and str(platform.data_dir / "logs") in lines[-1]


async def test_every_line_of_a_service_is_in_its_file_and_only_errors_are_shown(
    start: Start,
) -> None:
    platform = await start()
    await platform.ready()
    log = platform.data_dir / "logs" / "router.log"

    await until(lambda: "not JSON" in log.read_text())

    assert [json.loads(line) for line in log.read_text().splitlines() if line[0] == "{"] == [
        {"service": "router", "event": "started"}
    ]
    platform.process.send_signal(signal.SIGTERM)
    assert "started" not in (await platform.ended())[2]


async def test_a_process_that_ends_is_told_with_its_log(start: Start) -> None:
    platform = await start()
    pids = (await platform.ready())["pids"]

    os.kill(pids["router"], signal.SIGKILL)
    await until(lambda: platform.report()["pids"].get("router") not in (pids["router"], None))
    platform.process.send_signal(signal.SIGTERM)
    err = (await platform.ended())[2]

    log = platform.data_dir / "logs" / "router.log"
    assert (
        f"router ended (SIGKILL) and is started again in 0.2 s; its log is {log}"
        in err.splitlines()
    )


async def test_a_person_at_a_terminal_gets_a_card(database: str, tmp_path: Path) -> None:
    http, grpc = ports.reserve(2)
    arguments = ["--broker", "pull", "--mongo-url", database, "--data-dir", str(tmp_path)]
    arguments += ["--http-port", str(http), "--grpc-port", str(grpc)]
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=environment(), cwd=ROOT, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = ""
    async with asyncio.timeout(60):
        while "Ctrl-C stops it." not in shown or "/v1/status" not in shown:
            shown += (await asyncio.to_thread(os.read, ours, 4096)).decode()
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    os.close(ours)

    before, _, card = shown.rpartition("\x1b[2K")
    assert "\n" not in before, "until it is ready, one line is written anew"
    for told in (f"http://127.0.0.1:{http}/docs", f"127.0.0.1:{grpc}", f"{tmp_path}/logs"):
        assert told in card
    assert f"STELLWERK_TOKEN_FILE={tmp_path}/token" in card
    begin = rf"stellwerk --data-dir {tmp_path}"
    assert len(re.findall(rf"{begin} (?:status|models list)|curl -H", card)) == 3


async def test_a_host_that_others_reach_is_told_with_its_address_and_without_tls(
    start: Start,
) -> None:
    platform = await start("--host", "0.0.0.0")
    ready = await platform.ready()

    platform.process.send_signal(signal.SIGTERM)
    told = (await platform.ended())[2].splitlines()[-3:]

    _, http_port = ready["http"].rsplit(":", 1)
    _, grpc_port = ready["grpc"].rsplit(":", 1)
    host = ports.outside_address("0.0.0.0")
    network = (
        f"open to the network without TLS (put a proxy in front): http://{host}:{http_port},"
        f" {host}:{grpc_port}"
    )
    assert f"the platform is {network}" in told
    assert ready["http"] == f"http://127.0.0.1:{http_port}"


@pytest.mark.parametrize("network", ["", "open to the network without TLS: http://192.0.2.7:8080"])
def test_the_card_has_a_line_for_the_network_if_others_reach_the_platform(network: str) -> None:
    report = ReadyReport("http://127.0.0.1:8080", "127.0.0.1:8081", Path("/d/token"), "b", "m")

    card = report.as_card("stellwerk", Path("/d/logs"), 1.0, network)

    assert ("  Network  " in card, network in card) == (bool(network), True)


async def test_the_help_shows_where_data_lies_by_default() -> None:
    process = await asyncio.create_subprocess_exec(
        *command("--help"),
        env=environment(XDG_DATA_HOME="/x", COLUMNS="200"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )

    out, _ = await process.communicate()

    assert "[default: /x/stellwerk]" in out.decode()
