"""The platform with a recorder in each process, as `stellwerk up` starts it, on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.request_trace.injected.sitecustomize import FOLDER, PRODUCT, ROOT

REPOSITORY = Path(__file__).resolve().parents[2]
# The module that starts and stops the platform; it is beside the request's way.
LAUNCHER = "services.local"
_INJECTED = Path(__file__).resolve().parent / "injected"
# Seconds: the supervisor itself grants 30 to the platform's stop.
_STOP_SECONDS = 40.0


class NotUp(Exception):
    """The platform did not come up; the message says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where the platform answers, and an administrator's token."""

    http: str
    token: str


class Switch:
    """The byte that says which recording is under way, 0 for none; all processes see a change."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "switch"
        self._path.write_bytes(b"\0")

    @contextlib.contextmanager
    def recording(self, number: int) -> Iterator[None]:
        """Records under a number from 1 to 255 while the context lasts."""
        self._set(number)
        try:
            yield
        finally:
            self._set(0)

    def _set(self, number: int) -> None:
        with self._path.open("r+b") as file:
            file.write(bytes([number]))


def environment(folder: Path, inherited: dict[str, str]) -> dict[str, str]:
    """Returns the inherited variables with this checkout's code and the recorder.

    Settings of services are left out.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("STELLWERK_")}
    code = [_INJECTED, folder, REPOSITORY, REPOSITORY / "generated", REPOSITORY / "sdk"]
    paths = [*map(str, code), *filter(None, [kept.get("PYTHONPATH")])]
    product = os.pathsep.join(f"{path}/" for path in product_folders())
    recorder = {FOLDER: str(folder), ROOT: str(REPOSITORY), PRODUCT: product}
    return kept | recorder | {"PYTHONPATH": os.pathsep.join(paths)}


def product_folders() -> list[Path]:
    """Returns the folders of the services, their chassis, and what processes must agree on."""
    launcher = REPOSITORY / LAUNCHER.replace(".", "/")
    services = [path for path in sorted((REPOSITORY / "services").iterdir()) if path.is_dir()]
    return [path for path in services if path != launcher] + [REPOSITORY / "sdk/stellwerk/wire"]


def write_metadata(folder: Path) -> None:
    """Writes this checkout's entry points, which name the model formats, as an installed package.

    The package that is really installed may be of another checkout, with formats in other modules.
    """
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    name, version = project["name"], project["version"]
    target = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    target.mkdir()
    (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (target / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def platform(data_dir: Path, events: Path) -> Iterator[Running]:
    """Starts the platform, yields when it is ready, and stops it at the end. Raises NotUp."""
    command = [sys.executable, "-m", LAUNCHER, "up", "--data-dir", str(data_dir)]
    for option, port in zip(("--http-port", "--grpc-port"), free_ports(2), strict=True):
        command += [option, str(port)]
    log = events / "platform.log"
    write_metadata(events)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stream,
            env=environment(events, dict(os.environ)),
            cwd=events,
            start_new_session=True,
        )
    try:
        yield _ready(process, log)
    finally:
        _stop(process)


def free_ports(count: int) -> list[int]:
    """Returns TCP ports of 127.0.0.1 that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _ready(process: subprocess.Popen[bytes], log: Path) -> Running:
    """Reads the one line of JSON that the platform prints when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotUp(f"the platform did not come up; the end of its log:\n{log.read_text()[-4000:]}")
    report: dict[str, Any] = json.loads(line)
    if not str(report["broker"]).startswith("RabbitMQ"):
        raise NotUp(f"the platform runs on {report['broker']}; install RabbitMQ to trace a request")
    return Running(report["http"], Path(report["token_file"]).read_text().strip())


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
