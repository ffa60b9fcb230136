"""Downloads: a version's bytes, with their digest verified before the last of them is given out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from services.repository.artifacts.transfers import Transfers
from services.repository.catalogue.store import Artifact, Store
from services.repository.metrics import Gauges
from services.repository.mongo import Artifacts
from stellwerk.wire.errors import Corrupt
from stellwerk.wire.names import ModelName


class Downloads:
    """Gives out artifacts."""

    def __init__(
        self,
        piece_bytes: int,
        store: Store,
        artifacts: Artifacts,
        transfers: Transfers,
        gauges: Gauges,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._piece_bytes, self._store, self._artifacts = piece_bytes, store, artifacts
        self._transfers, self._gauges, self._log = transfers, gauges, log

    async def send(self, name: ModelName, version: int) -> AsyncGenerator[bytes, None]:
        """The artifact in pieces. Raises Corrupt in place of the last piece if the bytes are not
        those once stored.
        """
        artifact = await self._store.artifact(name, version)
        with self._transfers.place():
            async with aclosing(self._verified(name, version, artifact)) as chunks:
                async for chunk in chunks:
                    for start in range(0, len(chunk), self._piece_bytes):
                        piece = (
                            chunk
                            if len(chunk) <= self._piece_bytes
                            else chunk[start : start + self._piece_bytes]
                        )
                        self._gauges.bytes_out.inc(len(piece))
                        yield piece

    async def _verified(
        self, name: ModelName, version: int, artifact: Artifact
    ) -> AsyncGenerator[bytes, None]:
        """The chunks, each held back until the next one has come and the last one until all are
        known to be right.
        """
        digest, size = hashlib.sha256(), 0
        held = b""
        try:
            async with aclosing(self._artifacts.read(artifact.file)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
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
            # One that was deleted under the download is gone, not damaged: this raises
            # VersionNotFound.
            await self._store.artifact(name, version)
            self._gauges.corrupt.inc()
            self._log.error(
                "artifact_corrupt", model=str(name), version=version, file=artifact.file
            )
            raise
        yield held
