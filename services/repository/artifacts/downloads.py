"""Sends the bytes of a version; the last chunk is sent only after the digest of all is verified."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from services.repository.artifacts.artifact_store import ArtifactStore
from services.repository.catalogue.models import Models, StoredArtifact
from services.repository.metrics import RepositoryMetrics
from stellwerk.wire.errors import Corrupt
from stellwerk.wire.names import ModelName


class Downloads:
    """Sends artifacts in pieces of up to `piece_bytes`."""

    def __init__(
        self,
        piece_bytes: int,
        models: Models,
        artifacts: ArtifactStore,
        metrics: RepositoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._piece_bytes = piece_bytes
        self._models = models
        self._artifacts = artifacts
        self._metrics = metrics
        self._log = log

    async def send(self, name: ModelName, version: int) -> AsyncGenerator[bytes, None]:
        """Yields the artifact in pieces.

        Raises ModelNotFound, VersionNotFound, Overloaded; Corrupt in place of the last piece if the
        bytes are not those once stored.
        """
        artifact = await self._models.artifact(name, version)
        with self._artifacts.transfer():
            async with aclosing(self._verified(name, version, artifact)) as chunks:
                async for chunk in chunks:
                    for start in range(0, len(chunk), self._piece_bytes):
                        piece = (
                            chunk  # whole: slicing would copy it
                            if len(chunk) <= self._piece_bytes
                            else chunk[start : start + self._piece_bytes]
                        )
                        self._metrics.bytes_out.inc(len(piece))
                        yield piece

    async def _verified(
        self, name: ModelName, version: int, artifact: StoredArtifact
    ) -> AsyncGenerator[bytes, None]:
        """Yields the chunks one behind the reading, and the last one when size and digest are
        verified.
        """
        digest = hashlib.sha256()
        size = 0
        held = b""
        try:
            async with aclosing(self._artifacts.read(artifact.file)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    # Hashing releases the interpreter's lock: the loop sends meanwhile.
                    digesting = asyncio.ensure_future(asyncio.to_thread(digest.update, chunk))
                    if held:
                        yield held
                    held = chunk
                    await digesting
            if size != artifact.size or digest.hexdigest() != artifact.sha256:
                raise Corrupt(
                    "the stored artifact is damaged; store the model anew",
                    version=f"{name}/{version}",
                )
        except Corrupt:
            # A version deleted during the download is gone, not damaged: this raises
            # VersionNotFound.
            await self._models.artifact(name, version)
            self._metrics.corrupt.inc()
            self._log.error(
                "artifact_corrupt", model=str(name), version=version, file=artifact.file
            )
            raise
        yield held
