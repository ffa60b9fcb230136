"""Downloads over gRPC, with a real MongoDB: whole and verified, or refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import errors
from tests.fakes.repository_server import (
    RepositoryServer,
    held,
    is_streaming,
    repository,
    skops_bytes,
    until,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_downloads") as running:
        yield running


async def test_an_artifact_comes_back_as_it_was_stored(server: RepositoryServer) -> None:
    ada, data = server.as_(), skops_bytes(5 * MIB + 17)

    version = await ada.put(
        "whole", data, labels={"team": "blue"}, metadata={"run.id": "7"}, description="a model"
    )

    assert await ada.fetch(version.name) == data
    assert version.version == 1 and version.size_bytes == len(data)
    assert version.sha256 == hashlib.sha256(data).hexdigest()
    assert version.creator == "principals/ada" and dict(version.metadata) == {"run.id": "7"}
    stored = await ada.stub.GetModelVersion(pb.GetModelVersionRequest(name=version.name))
    assert stored.model_version == version


async def test_gridfs_tools_read_what_is_stored(server: RepositoryServer) -> None:
    from gridfs.asynchronous import AsyncGridFSBucket

    ada, data = server.as_(), skops_bytes(3 * MIB + 5)
    version = await ada.put("standard", data)

    stream = await AsyncGridFSBucket(server.database).open_download_stream_by_name(version.name)

    assert await stream.read() == data


async def test_only_the_first_message_of_a_download_has_a_content_type(
    server: RepositoryServer,
) -> None:
    ada = server.as_()
    version = await ada.put("typed", skops_bytes(3 * MIB))

    messages = [
        part
        async for part in ada.stub.DownloadArtifact(pb.DownloadArtifactRequest(name=version.name))
    ]

    assert [m.artifact.content_type for m in messages] == ["application/octet-stream", "", ""]


@pytest.mark.parametrize("damage", ["changed", "shortened", "missing"])
async def test_a_damaged_artifact_ends_in_data_loss_before_its_last_byte(
    server: RepositoryServer, damage: str
) -> None:
    ada, data = server.as_(), skops_bytes(3 * MIB)
    version = await ada.put(f"damaged-{damage}", data)
    file = (await server.database.versions.find_one({"model": f"default/damaged-{damage}"}))["file"]
    chunks = server.database["fs.chunks"]
    if damage == "missing":
        await chunks.delete_one({"files_id": file, "n": 1})
    else:
        bad = bytes(MIB) if damage == "changed" else bytes(17)
        await chunks.update_one({"files_id": file, "n": 2}, {"$set": {"data": bad}})

    got = b""
    with pytest.raises(errors.Corrupt):
        async for part in ada.stub.DownloadArtifact(pb.DownloadArtifactRequest(name=version.name)):
            got += part.artifact.data

    assert len(got) < len(data)


async def test_transfers_beyond_the_places_are_refused(mongod: str) -> None:
    async with repository(mongod, "repository_places", max_transfers=1) as narrow:
        ada, gate = narrow.as_(), asyncio.Event()
        upload = await ada.open("one")
        first = asyncio.create_task(ada.stub.UploadArtifact(held(upload, 100, gate)))

        await until(lambda: is_streaming(narrow))
        with pytest.raises(errors.Overloaded):
            await ada.put("two")
        gate.set()
        await first
        assert (await ada.put("two")).version == 1


async def test_a_deleted_version_ends_a_download_as_not_found(server: RepositoryServer) -> None:
    ada = server.as_()
    version = await ada.put("vanishing", skops_bytes(3 * MIB))
    await ada.stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=version.name))

    with pytest.raises(errors.ModelNotFound):
        await ada.fetch(version.name)

    assert not await server.database["fs.files"].count_documents({"filename": version.name})
