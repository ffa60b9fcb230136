"""`stellwerk up` against stand-ins for the five services: real processes, real signals, no
database.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from services.local.plan import place
from tests.fakes.platform.fake_service import answering
from tests.fakes.platform.up import Start, starter, until

SERVICES = {"api_gateway", "router", "runtime", "repository", "controlplane"}


@pytest.fixture
async def start(tmp_path: Path, database: str) -> AsyncIterator[Start]:
    async for begin in starter(tmp_path, "--broker", "pull", "--mongo-url", database, "--verbose"):
        yield begin


async def test_it_says_where_everything_is_in_one_line_of_json(start: Start, database: str) -> None:
    platform = await start("--runtimes", "2")

    ready = await platform.ready()

    assert ready["ready"] is True
    assert set(ready["pids"]) == SERVICES - {"runtime"} | {"runtime-1", "runtime-2"}
    assert ready == platform.report()
    assert _text(ready["token_file"]).startswith("token for swk_")
    assert ready["mongo"] == f"MongoDB at {place(database)} (as told)"
    assert set(ready["metrics"]) == set(ready["pids"])
    commands = {name: psutil.Process(pid).cmdline()[1:] for name, pid in ready["pids"].items()}
    assert commands["router"] == ["-P", "-m", "services.router"]
    assert commands["runtime-2"] == ["-P", "-m", "services.runtime"]


async def test_secrets_tokens_and_the_ready_file_are_for_their_owner_only(start: Start) -> None:
    platform = await start()

    await platform.ready()

    files = [
        path
        for path in platform.data_dir.rglob("*")
        if path.is_file() and path.parent.name != "run"
    ]
    assert {path.name for path in files} >= {
        "ready.json",
        "token",
        "root.key",
        "admin.key",
        "mongo-url",
        "router.key",
    }
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in files} == dict.fromkeys(
        files, 0o600
    )
    assert stat.S_IMODE(platform.data_dir.stat().st_mode) == 0o700


async def test_secrets_reach_services_as_files_and_never_as_values(
    start: Start, database: str
) -> None:
    platform = await start(STELLWERK_LISTEN="0.0.0.0:1", STELLWERK_SLOTS="7")

    await platform.ready()

    repository, router = platform.told("repository"), platform.told("router")
    assert _text(repository["STELLWERK_MONGO_URL_FILE"]) == database
    assert _text(router["STELLWERK_SERVICE_KEY_FILE"]).startswith("sws_router_")
    assert "STELLWERK_MONGO_URL_FILE" not in router
    assert not [
        value
        for value in {**repository, **router}.values()
        if "secret@" in value or value.startswith("sw")
    ]
    assert router["STELLWERK_LISTEN"].startswith("127.0.0.1:")
    assert router["STELLWERK_SLOTS"] == "7"


async def test_a_killed_service_comes_back_alone_where_it_was(start: Start) -> None:
    platform = await start()
    before = (await platform.ready())["pids"]
    listen = platform.told("router")["STELLWERK_LISTEN"]

    os.kill(before["router"], signal.SIGKILL)

    after = await until(
        lambda: (
            (pids := platform.report()["pids"]).get("router") not in (before["router"], None)
            and pids
        )
    )
    assert {name for name in before if before[name] != after[name]} == {"router"}
    host, _, port = listen.partition(":")
    await until(lambda: socket.socket().connect_ex((host, int(port))) == 0)
    assert platform.told("router")["STELLWERK_LISTEN"] == listen


async def test_each_of_the_five_comes_back_without_disturbing_the_others(start: Start) -> None:
    platform = await start()
    before = (await platform.ready())["pids"]

    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def renewed() -> bool:
        now = platform.report()["pids"]
        return all(now.get(name) not in (before[name], None) for name in SERVICES)

    await until(renewed)


async def test_it_is_not_ready_while_another_program_answers_in_place_of_a_service(
    start: Start, tmp_path: Path
) -> None:
    crash = tmp_path / "data" / "run" / "router.crash"
    crash.parent.mkdir(parents=True)
    crash.touch()
    platform = await start()
    await until(lambda: (crash.parent / "router.env.json").exists())
    impostor = answering(platform.told("router")["STELLWERK_LISTEN"])

    alone = {"router": f"does not listen on {platform.told('router')['STELLWERK_LISTEN']}"}
    # Under load the other four may be late too; the test's time limit bounds the wait.
    while (await platform.said("waiting"))["missing"] != alone:
        pass

    impostor.stop(0).wait()
    crash.unlink()
    pids = (await platform.ready())["pids"]
    assert set(pids) == SERVICES and None not in pids.values()


async def test_a_process_that_does_not_run_has_no_pid_in_the_ready_file(start: Start) -> None:
    platform = await start()
    pids = (await platform.ready())["pids"]
    (platform.data_dir / "run" / "router.crash").touch()

    os.kill(pids["router"], signal.SIGKILL)

    gone = await until(lambda: (now := platform.report()["pids"]) != pids and now)
    assert gone == {name: pid for name, pid in pids.items() if name != "router"}


async def test_sigterm_stops_the_gateway_first_and_leaves_nothing_behind(start: Start) -> None:
    platform = await start()
    pids = (await platform.ready())["pids"]

    platform.process.send_signal(signal.SIGTERM)
    code, out, _ = await platform.ended()

    assert code == 0
    assert out == ""
    order = (platform.data_dir / "run" / "stopped").read_text().split()
    assert order[:2] == ["api_gateway", "runtime"]
    assert set(order[2:4]) == {"router", "repository"}
    assert order[4:] == ["controlplane"]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert not (platform.data_dir / "ready.json").exists()


async def test_children_die_when_the_supervisor_is_killed(start: Start) -> None:
    platform = await start()
    pids = (await platform.ready())["pids"]

    platform.process.kill()
    await platform.process.wait()

    await until(lambda: not any(_runs(pid) for pid in pids.values()))


async def test_a_second_platform_in_the_same_directory_is_refused(start: Start) -> None:
    platform = await start()
    await platform.ready()

    port = platform.told("api_gateway")["STELLWERK_HTTP_LISTEN"].rpartition(":")[2]
    # The same command again asks for the same ports too.
    code, out, err = await (await start("--http-port", port)).ended()

    assert (code, out) == (1, "")
    assert f"a platform already runs in {platform.data_dir} (process {platform.process.pid})" in err
    assert platform.report()["ready"] is True


async def test_a_port_in_use_is_named_together_with_its_option(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        code, out, err = await (await start("--grpc-port", str(port))).ended()

    assert (code, out) == (1, "")
    said = (
        f"cannot listen on 127.0.0.1:{port} (another program uses it); give another port with"
        " --grpc-port"
    )
    assert said in err


async def test_ctrl_c_before_it_is_ready_stops_it_too(start: Start, tmp_path: Path) -> None:
    crash = tmp_path / "data" / "run"
    crash.mkdir(parents=True)
    (crash / "router.crash").touch()
    platform = await start()
    await until(lambda: (crash / "router.env.json").exists())

    platform.process.send_signal(signal.SIGINT)
    code, out, err = await platform.ended()

    assert (code, out) == (0, "")
    said = [json.loads(line) for line in err.splitlines()]
    assert any("stopping …" in line.get("message", "") for line in said)
    assert '"stopped"' in err


async def test_a_service_that_crashes_is_started_less_and_less_often(
    start: Start, tmp_path: Path
) -> None:
    crash = tmp_path / "data" / "run"
    crash.mkdir(parents=True)
    (crash / "router.crash").touch()
    platform = await start()
    delays: list[float] = []

    async for line in platform.process.stderr:
        record = json.loads(line)
        if record["event"] == "process_ended":
            assert record["how"] == "exit code 3"
            delays.append(record["restart_in_seconds"])
        if len(delays) == 3:
            break
    (crash / "router.crash").unlink()

    assert delays == [0.2, 0.4, 0.8]
    assert (await platform.ready())["ready"] is True


async def test_off_a_terminal_every_line_of_the_log_is_json(start: Start) -> None:
    platform = await start()
    await platform.ready()

    platform.process.send_signal(signal.SIGTERM)
    _, _, err = await platform.ended()

    records = [json.loads(line) for line in err.splitlines()]
    assert {"service": "router", "event": "started"} in records
    assert [
        r["line"] for r in records if r["service"] == "repository" and r["event"] == "output"
    ] == ["not JSON"]
    assert "secret" not in err


def _text(path: str) -> str:
    return Path(path).read_text()


def _runs(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet collected does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
