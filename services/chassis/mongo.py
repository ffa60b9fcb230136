"""Opens MongoDB for all services: majority-durable writes, short time-outs, ServiceErrors.

Nothing above this module sees an error of the driver, except DuplicateKeyError.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from services.chassis import background
from services.chassis.config import ConfigError
from stellwerk.wire.errors import Conflict, Overloaded, ServiceError, Unavailable

T = TypeVar("T")
Document = dict[str, Any]
# Seconds between two pings, and for which the answer to one is awaited.
_PING_SECONDS = 1.0
_ANSWER_SECONDS = 2.0
# Seconds after which an outage that goes on is logged again.
_REMIND_SECONDS = 60.0
# MongoDB's error codes.
_DISK_FULL = 14031
_WRITE_CONFLICT = 112
_AUTHENTICATION_FAILED = 18


def connect(url: str, application: str) -> AsyncMongoClient[Document]:
    """Returns a client that connects with its first use.

    Raises ConfigError if the URL is none.
    """
    try:
        return AsyncMongoClient(
            url,
            appname=application,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            tz_aware=True,
            serverSelectionTimeoutMS=3000,
            connectTimeoutMS=2000,
            socketTimeoutMS=20_000,
            heartbeatFrequencyMS=2000,
            retryWrites=True,
        )
    except (PyMongoError, ValueError) as exc:
        # The driver's sentence can repeat a part of the URL, and with it a password.
        raise ConfigError(
            "STELLWERK_MONGO_URL: must be mongodb://user:password@host:port/?options, with special"
            f" characters of user and password percent-encoded ({type(exc).__name__})"
        ) from None


@asynccontextmanager
async def errors() -> AsyncIterator[None]:
    """Turns the driver's errors within the block into ServiceErrors.

    Unreachable becomes Unavailable, a full disk Overloaded, a lost race Conflict. DuplicateKeyError
    passes: only the store knows which resource it is about.
    """
    try:
        yield
    except ConnectionFailure as exc:
        raise Unavailable("the database does not answer; try again in a moment") from exc
    except OperationFailure as exc:
        if exc.code == _DISK_FULL:
            raise Overloaded("the database has no space left; free some and try again") from exc
        if exc.code == _WRITE_CONFLICT or exc.has_error_label("TransientTransactionError"):
            raise Conflict("another change came first; read again and try again") from exc
        raise


async def in_transaction(
    client: AsyncMongoClient[Document], work: Callable[[AsyncClientSession], Awaitable[T]]
) -> T:
    """Runs `work` in one transaction; the driver repeats it after transient conflicts.

    Others see all of its writes or none. Raises as `errors` does.
    """
    async with errors(), client.start_session() as session:
        return await session.with_transaction(
            work,
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority", j=True),
        )


class MongoWatch:
    """Watches whether MongoDB answers, and runs a preparation (indexes, defaults) once it does.

    `problem` is one sentence on why it cannot be used, "" while it can.
    """

    def __init__(
        self,
        client: AsyncMongoClient[Document],
        log: Any,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._log = log
        self._prepare = prepare
        self._logged_at = -math.inf
        self.prepared = asyncio.Event()
        self.problem = "the database has not been reached yet"

    async def run(self) -> None:
        """Pings for ever."""
        await background.run_forever(
            self._ping, self._failed, expected=(PyMongoError, TimeoutError, ServiceError)
        )

    async def _ping(self, succeeded: Callable[[], None]) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._client.admin.command("ping")
        if not self.prepared.is_set():
            if self._prepare is not None:
                await self._prepare()
            self.prepared.set()
        if self.problem:
            self._log.info("mongodb_connected", mongodb=self._where())
        self.problem = ""
        succeeded()
        await asyncio.sleep(_PING_SECONDS)

    def _failed(self, error: Exception, repeats: bool) -> None:
        where = self._where()
        if isinstance(error, ServiceError) and not isinstance(error, Unavailable):
            self.problem = error.message
        elif isinstance(error, OperationFailure) and error.code == _AUTHENTICATION_FAILED:
            self.problem = (
                f"the database refuses the login: MongoDB at {where} does not accept the user name"
                " and password of STELLWERK_MONGO_URL"
            )
        else:
            self.problem = (
                f"the database does not answer: MongoDB at {where} cannot be reached; start it, or"
                " set STELLWERK_MONGO_URL to its address"
            )
        now = time.monotonic()
        if not repeats or now - self._logged_at > _REMIND_SECONDS:
            self._logged_at = now
            self._log.error("mongodb_unusable", mongodb=where, problem=self.problem)

    def _where(self) -> str:
        servers = self._client.topology_description.server_descriptions()
        return ", ".join(f"{host}:{port}" for host, port in sorted(servers))
