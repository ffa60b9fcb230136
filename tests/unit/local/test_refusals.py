"""`stellwerk up` says in one sentence, at once, why it cannot start, and starts nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from services.local import ports
from services.local.data_directory import absolute_path
from services.local.errors import StartFailed
from services.local.preflight import check_variables
from tests.fakes.mongo import mongo
from tests.fakes.platform.up import ROOT, command, environment


async def refused(*arguments: str, wrapper: tuple[str, ...] = (), **variables: str) -> str:
    """The one sentence of a start that is refused."""
    http, grpc = map(str, ports.reserve(2))
    process = await asyncio.create_subprocess_exec(
        *wrapper,
        *command("--http-port", http, "--grpc-port", grpc, *arguments),
        env=environment(**variables),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    lines = err.decode().splitlines()
    assert (process.returncode, out, len(lines)) == (1, b"", 1), err.decode()
    assert lines[0].startswith("stellwerk: ")
    return lines[0].removeprefix("stellwerk: ")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


async def test_a_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    itself = await refused("--data-dir", str(file))
    below = await refused("--data-dir", str(file / "data"))

    assert itself == (
        f"the data directory {file} cannot be used (it is a file); give another with --data-dir"
    )
    assert f"{file / 'data'} cannot be used ({file} is a file)" in below


async def test_a_data_directory_that_cannot_be_made_is_named() -> None:
    sentence = await refused("--data-dir", "/proc/stellwerk/data")

    assert "the data directory /proc/stellwerk/data cannot be used (" in sentence


async def test_a_directory_that_takes_no_bytes_is_named(data: str) -> None:
    no_bytes = ("/bin/sh", "-c", 'ulimit -f 0; exec "$0" "$@"')

    sentence = await refused("--data-dir", data, "--broker", "pull", wrapper=no_bytes)

    assert f"the data directory {data} cannot be used (File too large)" in sentence


async def test_an_account_whose_home_cannot_be_used_is_told_of_data_dir(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()

    sentence = await refused(HOME=str(home), XDG_DATA_HOME=str(home))

    assert sentence.endswith(f"({home} is a file); give another with --data-dir")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", "--data-dir is empty; give a directory with --data-dir"),
        ("/", "--data-dir / is the root of all files; give one of its own"),
        (
            "~nobody-here/data",
            "the home directory in --data-dir ~nobody-here/data is not known; write the path out",
        ),
    ],
)
async def test_a_data_directory_that_is_none_is_named(given: str, sentence: str) -> None:
    assert await refused("--data-dir", given) == sentence


def test_an_account_without_a_home_is_told_of_data_dir() -> None:
    # Such an account has no default.
    with pytest.raises(StartFailed, match=r"^this account has no home .* with --data-dir$"):
        absolute_path("", default="")


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "http://", "ftp://host:4317", "host:0x1", "http://host:4317/v1/traces"]
)
async def test_a_collector_that_is_no_address_is_refused(endpoint: str, data: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command("--data-dir", data, "--otel-endpoint", endpoint),
        env=environment(COLUMNS="200"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )

    _, err = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 2
    assert "--otel-endpoint" in err.decode()
    assert "must be host:port or http(s)://host:port" in err.decode()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_a_host_that_is_not_ours_is_named_with_its_option(host: str, data: str) -> None:
    sentence = await refused("--data-dir", data, "--host", host)

    assert sentence.startswith(f"--host {host} is no address of this machine (")
    assert "127.0.0.1" in sentence and "port" not in sentence


async def test_two_doors_cannot_share_a_port(data: str) -> None:
    arguments = ("--data-dir", data, "--http-port", "18999", "--grpc-port", "18999")

    assert await refused(*arguments) == (
        "--http-port and --grpc-port are both 18999; give each a port of its own"
    )


async def test_a_door_cannot_have_a_port_of_the_metrics(data: str) -> None:
    sentence = await refused("--data-dir", data, "--grpc-port", "19003", "--metrics-port", "19000")

    assert sentence == (
        "--grpc-port 19003 is one of the 5 ports from --metrics-port 19000 on; change one of the"
        " two"
    )


async def test_every_setting_that_does_not_parse_is_named(data: str) -> None:

    sentence = await refused(
        *("--data-dir", data, "--broker", "pull"),
        STELLWERK_SLOTS="many",
        STELLWERK_MAX_BODY_BYTES="-1",
    )

    assert "STELLWERK_SLOTS: " in sentence and "STELLWERK_MAX_BODY_BYTES: " in sentence
    assert os.listdir(f"{data}/run") == []


async def test_certificates_that_cannot_be_used_are_named(data: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no certificate")
    names = ("STELLWERK_TLS_CA", "STELLWERK_TLS_KEY", "STELLWERK_TLS_CERTIFICATE")
    files = dict.fromkeys(names, str(tmp_path / "file"))
    arguments = ("--data-dir", data)

    sentence = await refused(*arguments, "--broker", "pull", **files)

    assert sentence.startswith(f"the files of {', '.join(names)} cannot be used (")


async def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(data: str) -> None:
    sentence = await refused("--data-dir", data, STELLWERK_SLOT="4", STELLWERK_LABLES="a=b")

    assert "STELLWERK_SLOT is no setting, did you mean STELLWERK_SLOTS?" in sentence
    assert "STELLWERK_LABLES is no setting, did you mean STELLWERK_LABELS?" in sentence
    assert os.listdir(os.path.dirname(data)) == []


def test_every_known_variable_and_every_strange_one_is_let_through() -> None:
    known = {"STELLWERK_URL", "STELLWERK_TOKEN_FILE", "STELLWERK_SLOTS", "STELLWERK_BROKER_FILE"}
    strange = {"STELLWERK_ROUTER_SERVICE_HOST", "STELLWERK_FOO"}

    assert check_variables(dict.fromkeys(known | strange, "x")) == sorted(strange)


@pytest.mark.parametrize(
    "address", [("--mongo-url", "mongodb://u:secret@{}"), ("--broker", "amqp://u:secret@{}/")]
)
async def test_a_server_that_is_not_there_is_named_with_its_option(
    address: tuple[str, str], data: str
) -> None:
    option, url = address
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
        arguments = ["--data-dir", data]
        arguments += ["--broker", "pull", option, url.format(place)]

        with mongo() as database:
            if option == "--broker":
                arguments += ["--mongo-url", database]
            sentence = await refused(*arguments)

    product = "MongoDB" if option == "--mongo-url" else "RabbitMQ"
    assert sentence.startswith(f"no {product} ") and place in sentence
    assert "Connection refused" in sentence
    assert sentence.endswith(f"; start it, or correct {option}")
    assert "secret" not in sentence


async def test_a_mongodb_that_is_no_replica_set_is_told_what_it_lacks(data: str) -> None:
    arguments = ["--data-dir", data]

    with mongo(replica_set=False) as alone:
        sentence = await refused(*arguments, "--broker", "pull", "--mongo-url", alone)

    assert "is no replica set" in sentence and "--replSet" in sentence
