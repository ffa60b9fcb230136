"""What an upload took is freed when it has ended, however it ended: the collector of cycles comes
late, and until then every broken upload would keep some megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from services.repository.artifacts.artifact_store import ArtifactWriter
from services.repository.artifacts.incoming import ArtifactChunker
from stellwerk.wire.errors import ServiceError
from tests.fakes.repository_server import (
    RepositoryServer,
    pieces,
    repository,
    skops_bytes,
    until,
)

MIB = 1024 * 1024
KINDS = (ArtifactWriter, ArtifactChunker)


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_freed") as running:
        yield running


async def has_chunks(server: RepositoryServer) -> bool:
    return bool(await server.database["fs.chunks"].count_documents({}))


def alive() -> set[int]:
    return {id(one) for one in gc.get_objects() if type(one) in KINDS}


@pytest.mark.parametrize("end", ["good", "cancelled", "wrong digest", "no skops"])
async def test_an_upload_that_ended_is_freed_at_once(server: RepositoryServer, end: str) -> None:
    ada = server.as_()

    async def upload() -> None:
        spec = {"sha256": "0" * 64} if end == "wrong digest" else {}
        name = await ada.open("freed", **spec)
        if end == "cancelled":
            # While chunks are being inserted.
            call = asyncio.ensure_future(
                ada.stub.UploadArtifact(pieces(name, skops_bytes(40 * MIB)))
            )
            await until(lambda: has_chunks(server))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        else:
            data = bytes(3 * MIB) if end == "no skops" else skops_bytes(3 * MIB)
            with contextlib.suppress(ServiceError):
                await ada.stub.UploadArtifact(pieces(name, data))
        await server.process_idle()
        await server.database["fs.chunks"].delete_many({})

    await upload()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(8 if end == "cancelled" else 3):
            await upload()
        await until(lambda: alive() <= before)
    finally:
        gc.enable()
