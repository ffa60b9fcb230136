"""A repository that does what a test says, to be served behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest

from services.chassis import context
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs

CANARY = "hunter2-password"
READ = messages.GetModelRequest(name="buckets/team/models/iris")
DELETE = messages.DeleteModelRequest(name="buckets/team/models/iris")


class Repository(stubs.RepositoryServiceServicer):  # type: ignore[misc]
    """Does what its `behaviour` says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self.seen: context.CallContext | None = None
        self.calls: dict[str, context.CallContext] = {}
        self.deleted = 0
        self.cancelled = asyncio.Event()

    async def GetModel(self, request: Any, _: Any) -> messages.GetModelResponse:
        self.seen = context.current()
        assert self.seen is not None
        self.calls[request.name] = self.seen
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return messages.GetModelResponse(model=messages.Model(name=request.name))

    async def DeleteModel(self, request: Any, _: Any) -> messages.DeleteModelResponse:
        if self.error:
            raise self.error
        self.deleted += 1
        return messages.DeleteModelResponse()

    async def UploadArtifact(
        self, requests: AsyncIterator[Any], _: Any
    ) -> messages.UploadArtifactResponse:
        size = 0
        async for part in requests:
            size += len(part.artifact.data)
        return messages.UploadArtifactResponse(model_version=messages.ModelVersion(size_bytes=size))

    async def DownloadArtifact(
        self, request: Any, _: Any
    ) -> AsyncGenerator[messages.DownloadArtifactResponse]:
        for _part in range(3):
            yield messages.DownloadArtifactResponse()
        if self.error:
            raise self.error


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
