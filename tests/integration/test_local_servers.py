"""The private MongoDB and RabbitMQ of one machine: they start, keep what they were given, and leave
nothing behind.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from services.local.backing.mongod import Mongod, executable
from services.local.backing.mongod import installed as mongod_installed
from services.local.backing.rabbitmq import RabbitMQ
from services.local.backing.rabbitmq import installed as rabbitmq_installed
from services.local.errors import StartFailed
from services.local.processes.child import Child

needs_mongod = pytest.mark.skipif(not mongod_installed(), reason="no mongod here")
needs_rabbitmq = pytest.mark.skipif(not rabbitmq_installed(), reason="no RabbitMQ here")

_ORPHAN_MAKER = """
import sys
from pathlib import Path
from services.local.backing.{module} import {cls}
server = {cls}(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def _start_elsewhere(module: str, cls: str, directory: Path) -> tuple[subprocess.Popen[str], int]:
    """Another process that starts a server; returns it and the server's pid."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _ORPHAN_MAKER.format(module=module, cls=cls), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def _gone_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(_alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _epmds_under(directory: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["name"]):
        # Processes of others end while we look.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.info["name"] == "epmd" and process.cwd() == str(directory):
                found.append(process.pid)
    return found


@needs_mongod
def test_mongod_survives_a_crash_with_its_data_and_port(tmp_path: Path) -> None:
    server = Mongod(tmp_path)
    server.start()
    try:
        url, first = server.url, server.pid
        with MongoClient(url, w="majority") as client:
            client.work.things.insert_one({"_id": 1})

        server.kill()
        server.start()

        assert server.url == url
        assert server.pid != first
        with MongoClient(url) as client:
            assert client.work.things.count_documents({}) == 1
    finally:
        server.stop()
    assert server.pid is None


@needs_mongod
def test_a_first_start_that_was_interrupted_is_finished_by_the_next(tmp_path: Path) -> None:
    server = Mongod(tmp_path)
    (tmp_path / "data").mkdir()
    server.prepare()
    half = Child("mongod", tmp_path)
    half.start(
        [
            *(str(executable()), "--dbpath", tmp_path / "data", "--port", str(server.port)),
            *("--bind_ip", "127.0.0.1", "--replSet", "rs0", "--nounixsocket"),
        ]
    )
    with MongoClient(f"mongodb://127.0.0.1:{server.port}/?directConnection=true") as client:
        me = {"_id": 0, "host": f"127.0.0.1:{server.port}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [me]})
    half.stop()

    server.start()

    try:
        with MongoClient(server.url, w="majority") as client:
            client.work.things.insert_one({"_id": 1})
    finally:
        server.stop()


@needs_mongod
def test_mongod_takes_nobody_in_without_its_password(tmp_path: Path) -> None:
    server = Mongod(tmp_path)
    server.start()
    try:
        stranger = MongoClient(f"mongodb://127.0.0.1:{server.port}/?directConnection=true")
        with stranger, pytest.raises(OperationFailure, match="requires authentication"):
            stranger.work.things.find_one()
    finally:
        server.stop()


@needs_mongod
def test_mongod_ends_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    owner, pid = _start_elsewhere("mongod", "Mongod", tmp_path)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    assert _gone_within([pid], 15)
    again = Mongod(tmp_path)
    again.start()
    again.stop()


@needs_mongod
def test_a_mongod_left_behind_is_ended_by_the_next_start(tmp_path: Path) -> None:
    owner, pid = _start_elsewhere("mongod", "Mongod", tmp_path)
    for warden in psutil.Process(owner.pid).children():
        if warden.pid != pid:
            warden.kill()
    owner.kill()
    owner.wait()

    again = Mongod(tmp_path)
    again.start()

    assert _gone_within([pid], 0)
    again.stop()


@needs_mongod
def test_a_directory_in_use_is_refused_and_its_server_left_alone(tmp_path: Path) -> None:
    owner, pid = _start_elsewhere("mongod", "Mongod", tmp_path)
    try:
        with pytest.raises(StartFailed, match="in use"):
            Mongod(tmp_path).start()

        assert psutil.pid_exists(pid)
    finally:
        owner.kill()
        owner.wait()


@needs_rabbitmq
def test_rabbitmq_and_its_epmd_end_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    owner, pid = _start_elsewhere("rabbitmq", "RabbitMQ", tmp_path)
    epmds = _epmds_under(tmp_path)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    assert len(epmds) == 1
    assert _gone_within([pid, *epmds], 15)


@needs_rabbitmq
def test_rabbitmq_knows_only_the_user_made_for_it(rabbitmq_server: RabbitMQ) -> None:
    users = [
        line.split("\t")[0]
        for line in rabbitmq_server.ctl("list_users", "--no-table-headers").splitlines()
    ]

    assert users == ["stellwerk"]
    assert rabbitmq_server.version.count(".") == 2
