"""Asks the repository for a version's metadata and its artifact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.repository.v1 import repository_service_pb2_grpc as repository_grpc
from stellwerk.wire.errors import Unavailable

# Seconds of silence after which a download fails: the repository may hang behind a live connection.
_SILENCE_SECONDS = 30.0


class Repository:
    """The repository behind a channel, which adds token and deadline and raises ServiceErrors."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = repository_grpc.RepositoryServiceStub(channel)

    async def version(self, name: str) -> repository_pb2.ModelVersion:
        """Returns the version's metadata. Raises VersionNotFound, Unavailable."""
        response = await self._stub.GetModelVersion(
            repository_pb2.GetModelVersionRequest(name=name)
        )
        version: repository_pb2.ModelVersion = response.model_version
        return version

    async def download(self, name: str) -> AsyncIterator[bytes]:
        """Yields the artifact in chunks. Raises Unavailable after 30 seconds of silence."""
        stream = aiter(
            self._stub.DownloadArtifact(repository_pb2.DownloadArtifactRequest(name=name))
        )
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    response = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(
                    "the repository stopped sending the artifact; try again"
                ) from None
            yield response.artifact.data
