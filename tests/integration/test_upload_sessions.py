"""The record of an upload against a real mongod, whatever becomes of the call that changes it."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from pymongo import AsyncMongoClient

from services.repository.artifacts.upload_sessions import OPEN, UploadSession, UploadSessions
from services.repository.mongo import Database
from stellwerk.repository.v1 import repository_service_pb2 as pb


class LateServer:
    """A collection whose server makes each update when it is told to, also if the caller has gone
    meanwhile.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.asked, self.told = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    async def update_one(self, *given: Any) -> Any:
        self.asked.set()
        return await asyncio.shield(asyncio.create_task(self._update(given)))

    async def _update(self, given: Any) -> Any:
        await self.told.wait()
        return await self._collection.update_one(*given)


async def test_a_claim_that_is_made_after_its_call_was_cancelled_is_undone(mongod: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongod) as client:
        database = Database(client, "upload_sessions")
        database.uploads = server = LateServer(database.uploads)  # type: ignore[assignment]
        sessions = UploadSessions(database, structlog.get_logger())
        await sessions.open(UploadSession("u", "m", "ada", OPEN, pb.ModelVersion(), 0), 60, 9)
        dropped = []

        async def claim() -> None:
            try:
                async with sessions.claimed("u", "token"):
                    raise AssertionError("the call was cancelled before")
            finally:
                dropped.append(await sessions.drop("u", "token"))

        claiming = asyncio.create_task(claim())
        await server.asked.wait()
        claiming.cancel()
        # Time for an undoing that does not wait.
        await asyncio.wait([claiming], timeout=0.5)
        server.told.set()
        await asyncio.gather(claiming, return_exceptions=True)

        assert dropped == [True]
        assert await server.count_documents({"_id": "u"}) == 0
