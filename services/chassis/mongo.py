"""The one way to MongoDB: majority-durable writes, short time-outs, and driver errors made our own
at this edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from stellwerk.wire.errors import Conflict, Overloaded, Unavailable

T = TypeVar("T")
Document = dict[str, Any]
_PING_SECONDS = 1.0
_DISK_FULL = 14031
_WRITE_CONFLICT = 112


def connect(url: str, application: str) -> AsyncMongoClient[Document]:
    """A client that connects lazily; nothing fails before the first use."""
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


@asynccontextmanager
async def errors() -> AsyncIterator[None]:
    """Turns the driver's errors into ours: unreachable → Unavailable, disk full → Overloaded, lost
    race → Conflict.

    DuplicateKeyError passes: only the store knows what it means.
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
    """Runs `work` in one transaction, retried by the driver on transient conflicts. All or nothing
    is seen of it.
    """
    async with errors(), client.start_session() as session:
        return await session.with_transaction(
            work,
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority", j=True),
        )


class MongoWatch:
    """Knows whether the database answers, and runs a preparation (indexes, defaults) once it first
    does.
    """

    def __init__(
        self,
        client: AsyncMongoClient[Document],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._client, self._prepare = client, prepare
        self.prepared = asyncio.Event()
        self.problem = "the database has not been reached yet"

    async def run(self) -> None:
        """Pings for ever; to be run in the background."""
        while True:
            try:
                await asyncio.wait_for(self._client.admin.command("ping"), 2.0)
                if not self.prepared.is_set():
                    if self._prepare is not None:
                        await self._prepare()
                    self.prepared.set()
                self.problem = ""
            except (PyMongoError, TimeoutError):
                self.problem = "the database does not answer"
            await asyncio.sleep(_PING_SECONDS)
