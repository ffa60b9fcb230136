"""The parts of `stellwerk up`: ports, plans, delays, secrets, data directory."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local import ports
from services.local.backing import servers as backing
from services.local.data_directory import DataDirectory
from services.local.errors import StartFailed
from services.local.plan import (
    InternalPorts,
    Options,
    SecretFiles,
    address,
    environment,
    place,
    plan,
    process_names,
    reachable,
)
from services.local.preflight import choose_ports
from services.local.processes.supervised import (
    FIRST_DELAY,
    LONGEST_DELAY,
    STEADY_SECONDS,
    restart_delay,
)
from services.local.secrets import Secrets, write


def _plan(**options: object) -> dict[str, dict[str, str]]:
    chosen = Options(data_dir=Path("/data"), **options)  # type: ignore[arg-type]
    names = process_names(chosen.runtimes)
    metrics = {name: 30_000 + at for at, name in enumerate(names)}
    runtimes = tuple(range(10, 10 + chosen.runtimes))
    internal = InternalPorts(1, 2, 3, runtimes=runtimes, metrics=metrics)
    files = SecretFiles(
        *(Path(f"/{name}") for name in ("broker", "mongo", "keys", "root", "admin"))
    )
    return {
        process.name: dict(process.environment) for process in plan(chosen, internal, files, {})
    }


@given(st.lists(st.floats(min_value=0, max_value=STEADY_SECONDS, exclude_max=True), max_size=30))
def test_waits_between_restarts_grow_to_a_bound_while_a_process_keeps_ending(
    uptimes: list[float],
) -> None:
    delays = [0.0]
    for uptime in uptimes:
        delays.append(restart_delay(delays[-1], uptime))

    assert delays == sorted(delays)
    assert all(FIRST_DELAY <= delay <= LONGEST_DELAY for delay in delays[1:])


def test_a_process_that_stayed_up_is_restarted_at_once_again() -> None:
    assert restart_delay(LONGEST_DELAY, STEADY_SECONDS) == FIRST_DELAY


@given(count=st.integers(min_value=0, max_value=30))
def test_reserved_ports_are_different_and_below_those_of_outgoing_connections(count: int) -> None:
    found = ports.reserve(count)

    assert len(set(found)) == count
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < lowest_ephemeral for port in found)


def test_ports_promised_to_others_are_not_reserved_for_us() -> None:
    few = set(range(16_000, 16_400))

    assert set(ports.reserve(20, excluding=_all_but(few))) <= few


def test_a_port_is_reserved_by_one_process_until_it_ends() -> None:
    few = set(range(17_000, 17_400))
    with subprocess.Popen(
        [sys.executable, "-c", _RESERVES], stdin=PIPE, stdout=PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = set(json.loads(other.stdout.readline()))

        with pytest.raises(StartFailed, match="there are no 1 free ports"):
            ports.reserve(1, excluding=_all_but(theirs))
        other.stdin.close()
        other.wait()

    assert len(theirs) == 20
    assert theirs <= few
    assert set(ports.reserve(20, excluding=_all_but(theirs))) == theirs
    with pytest.raises(StartFailed, match="there are no 1 free ports"):
        ports.reserve(1, excluding=_all_but(theirs))


def _all_but(few: set[int]) -> set[int]:
    return set(range(65_536)) - few


_RESERVES = """
import json, sys
from services.local import ports
few = range(17_000, 17_400)
print(json.dumps(ports.reserve(20, excluding={*range(65_536)} - {*few})), flush=True)
sys.stdin.read()
"""


def test_no_connection_of_others_can_take_a_port_before_its_server_starts() -> None:
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(ports.free_port() < ephemeral for _ in range(20))


def test_no_process_gets_a_port_that_the_user_chose() -> None:
    http, grpc = ports.reserve(2)

    for _ in range(50):
        chosen = choose_ports(Options(data_dir=Path("/data"), http_port=http, grpc_port=grpc))
        ours = [chosen.controlplane, chosen.repository, chosen.router, *chosen.runtimes]
        ours += [chosen.mongod, chosen.rabbitmq, *chosen.metrics.values()]
        assert len({*ours, http, grpc}) == len(ours) + 2 == 13


def test_an_address_that_is_not_ours_is_a_problem_with_a_reason() -> None:
    with pytest.raises(StartFailed, match=r"cannot listen on 192\.0\.2\.1:80 .*--http-port"):
        ports.require("192.0.2.1", 80, "--http-port")


def _options(**more: int) -> Options:
    """Returns options whose HTTP and gRPC ports are free on this machine."""
    http, grpc = ports.reserve(2)
    return Options(data_dir=Path("/data"), http_port=http, grpc_port=grpc, **more)


def _free_range(count: int) -> int:
    """Returns the first of `count` ports in a row that are free."""
    while True:
        base = ports.reserve(1)[0]
        with contextlib.suppress(StartFailed):
            for port in range(base, base + count):
                ports.require("127.0.0.1", port, "--metrics-port")
            return base


def test_metrics_ports_count_up_from_the_one_given() -> None:
    base = _free_range(6)

    chosen = choose_ports(_options(metrics_port=base, runtimes=2))

    assert list(chosen.metrics.values()) == list(range(base, base + 6))


def test_a_metrics_port_in_use_names_its_option() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        with pytest.raises(StartFailed, match="--metrics-port"):
            choose_ports(_options(metrics_port=other.getsockname()[1]))


def test_every_service_finds_its_peers_where_they_listen() -> None:
    told = _plan(runtimes=3)

    for service in told.values():
        for peer in ("controlplane", "repository", "router"):
            assert service[f"STELLWERK_{peer.upper()}"] == told[peer]["STELLWERK_LISTEN"]
    listening = [service["STELLWERK_LISTEN"] for service in told.values()]
    assert len(set(listening)) == len(listening)


def test_only_those_who_need_the_database_or_the_root_key_are_told_of_them() -> None:
    told = _plan()

    holders = {name for name, service in told.items() if "STELLWERK_MONGO_URL_FILE" in service}
    assert holders == {"repository", "controlplane"}
    assert [name for name, service in told.items() if "STELLWERK_ROOT_KEY_FILE" in service] == [
        "controlplane"
    ]


def test_runtimes_have_names_of_their_own_and_one_cache_of_files() -> None:
    told = _plan(runtimes=2)

    assert told["runtime-1"]["STELLWERK_NAME"] == "runtime-1"
    assert told["runtime-1"]["STELLWERK_CACHE_DIR"] == told["runtime-2"]["STELLWERK_CACHE_DIR"]
    assert (
        told["runtime-1"]["STELLWERK_SERVICE_KEY_FILE"]
        == told["runtime-2"]["STELLWERK_SERVICE_KEY_FILE"]
    )


def test_only_the_gateway_listens_where_others_can_reach_it() -> None:
    told = _plan(host="0.0.0.0")

    public = {name for name, service in told.items() if "0.0.0.0" in service["STELLWERK_LISTEN"]}
    assert public == {"api_gateway"}
    assert told["controlplane"]["STELLWERK_GATEWAY"] == "127.0.0.1:8081"


@pytest.mark.parametrize("mine", ["STELLWERK_BROKER", "STELLWERK_BROKER_FILE"])
def test_a_variable_of_the_user_never_displaces_what_the_platform_decided(mine: str) -> None:
    built = environment(
        {"BROKER_FILE": "/ours"}, {mine: "theirs", "STELLWERK_SLOTS": "4", "PATH": "/bin"}
    )

    assert {key: value for key, value in built.items() if "BROKER" in key} == {
        "STELLWERK_BROKER_FILE": "/ours"
    }
    assert (built["STELLWERK_SLOTS"], built["PATH"]) == ("4", "/bin")


def test_a_wildcard_address_is_reached_on_the_loopback() -> None:
    assert [reachable("0.0.0.0:1"), reachable("127.0.0.1:2"), reachable("[::]:3")] == [
        "127.0.0.1:1",
        "127.0.0.1:2",
        "[::1]:3",
    ]


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")

    written = secrets.create()
    texts = {path: path.read_text() for path in written}

    assert len(set(texts.values())) == len(written) == 7
    assert secrets.create() == []
    assert {path: path.read_text() for path in written} == texts
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


def test_a_lost_secret_is_made_anew_and_the_others_stay(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    secrets.create()
    secrets.service_key("router").write_text("")

    assert secrets.create() == [secrets.service_key("router")]


def test_a_file_that_was_open_to_others_is_not_when_written_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)

    write(path, "new")

    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_addresses_are_shown_without_their_passwords() -> None:
    assert place("amqp://user:secret@host:5672/v") == "host:5672"
    assert place("mongodb://u:p%40@a:1,b:2/?replicaSet=rs0") == "a:1,b:2"


def test_a_given_broker_is_used_as_told(tmp_path: Path) -> None:
    pull = backing.choose_broker("pull", tmp_path, 1)
    amqp = backing.choose_broker("amqp://user:secret@host:5672/v", tmp_path, 1)

    assert (pull.url, pull.description) == ("pull", "pull dispatch (as told)")
    assert (amqp.url, amqp.description) == (
        "amqp://user:secret@host:5672/v",
        "RabbitMQ at host:5672 (as told)",
    )


async def test_a_backing_that_was_never_started_is_not_stopped(tmp_path: Path) -> None:
    class Server:
        url, pid, version = "amqp://x", None, ""
        calls: ClassVar[list[str]] = []

        def prepare(self) -> None:
            self.calls.append("prepare")

        def start(self) -> None:
            self.calls.append("start")

        def stop(self) -> None:
            self.calls.append("stop")

        def kill(self) -> None:
            self.calls.append("kill")

    server = Server()
    ours = backing.Backing("rabbitmq", "RabbitMQ", "a private node", server=server)

    await ours.stop()
    ours.kill()
    await ours.start()
    await ours.stop()

    assert server.calls == ["prepare", "start", "stop"]


def test_a_disk_with_too_little_room_is_named(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", least_free_bytes=2**62)

    with pytest.raises(StartFailed, match=r"has \d+ MB left .* --data-dir"):
        directory.open()


def test_a_directory_that_is_released_can_be_held_by_another(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path), DataDirectory(tmp_path)
    first.open()

    with pytest.raises(StartFailed, match="already runs"):
        second.open()
    first.release()
    second.open()

    assert (first.locked, second.locked) == (False, True)
    second.release()


def test_an_ipv6_address_stands_in_brackets_before_its_port() -> None:
    assert [address("::1", 80), address("127.0.0.1", 80)] == ["[::1]:80", "127.0.0.1:80"]


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY", "no_grpc_proxy"])
def test_exceptions_from_the_proxy_are_kept_and_ours_added(name: str) -> None:
    told = environment({}, {name: "intern.example"}, "10.0.0.7")

    assert told[name] == "intern.example,127.0.0.1,localhost,::1,10.0.0.7"
    assert "127.0.0.1" in told["no_proxy"].split(",")
