"""The disk cache: fetched once, checked, bounded, and nothing half-written is ever left."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from services.runtime.models.artifacts import ArtifactCache
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt, Overloaded, Unavailable
from tests.fakes import models
from tests.fakes.repository_source import FakeRepository


def version(
    repository: FakeRepository, number: int, size: int = 5000
) -> repository_pb2.ModelVersion:
    name = f"buckets/default/models/m/versions/{number}"
    return repository.add(models.version("skops", name=name), bytes([number]) * size)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def cache(folder: Path, repository: FakeRepository, capacity: int = 20_000) -> ArtifactCache:
    made = ArtifactCache(folder, capacity, repository.download, fetched=lambda: None)
    await made.start()
    return made


async def test_an_artifact_is_fetched_once_and_found_again_after_a_restart(tmp_path: Path) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    for _ in range(2):
        artifacts = await cache(tmp_path, repository)
        for _ in range(3):
            async with artifacts.open(wanted) as path:
                assert path.read_bytes() == repository.artifacts[wanted.name]

    assert len(repository.downloads) == 1


async def test_many_who_want_the_same_wait_for_one_download(tmp_path: Path) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    artifacts = await cache(tmp_path, repository)
    repository.gate.clear()

    async def use() -> int:
        async with artifacts.open(wanted) as path:
            return path.stat().st_size

    users = [asyncio.create_task(use()) for _ in range(10)]
    await asyncio.sleep(0)
    users[0].cancel()
    repository.gate.set()

    assert await asyncio.gather(*users[1:]) == [5000] * 9
    assert len(repository.downloads) == 1


@pytest.mark.parametrize(
    "sent", [b"", b"\x02" * 5000, b"\x01" * 4999, b"\x01" * 5001, b"\x01" * 100_000]
)
async def test_other_bytes_than_were_stored_are_refused_and_removed(
    tmp_path: Path, sent: bytes
) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    repository.artifacts[wanted.name] = sent
    artifacts = await cache(tmp_path, repository)

    with pytest.raises(Corrupt):
        async with artifacts.open(wanted):
            pass

    assert names(tmp_path) == set()


async def test_a_file_that_changed_on_disk_is_fetched_again(tmp_path: Path) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    async with (await cache(tmp_path, repository)).open(wanted) as path:
        pass
    path.write_bytes(b"rot" * 10)

    async with (await cache(tmp_path, repository)).open(wanted) as path:
        assert path.read_bytes() == repository.artifacts[wanted.name]
    assert len(repository.downloads) == 2


async def test_the_least_recently_used_goes_when_room_is_needed(tmp_path: Path) -> None:
    repository = FakeRepository()
    artifacts = await cache(tmp_path, repository, capacity=10_000)
    first, second, third = (version(repository, number) for number in (1, 2, 3))
    for wanted in (first, second, first, third):
        async with artifacts.open(wanted):
            pass

    assert names(tmp_path) == {first.sha256, third.sha256}


async def test_what_is_open_stays_and_the_other_is_refused(tmp_path: Path) -> None:
    repository = FakeRepository()
    artifacts = await cache(tmp_path, repository, capacity=6000)
    first, second = version(repository, 1), version(repository, 2)

    async with artifacts.open(first) as path:
        with pytest.raises(Overloaded, match="does not fit"):
            async with artifacts.open(second):
                pass
        assert path.exists()


async def test_a_broken_download_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    broken = True

    async def download(name: str) -> AsyncIterator[bytes]:
        yield repository.artifacts[name][:1000]
        if broken:
            raise Unavailable("the repository went away")
        yield repository.artifacts[name][1000:]

    artifacts = ArtifactCache(tmp_path, 20_000, download, fetched=lambda: None)
    await artifacts.start()
    with pytest.raises(Unavailable):
        async with artifacts.open(wanted):
            pass
    assert names(tmp_path) == set()
    broken = False

    async with artifacts.open(wanted) as path:
        assert path.stat().st_size == 5000


async def test_a_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    class FullDisk(ArtifactCache):
        async def _receive(self, version: repository_pb2.ModelVersion, file: BinaryIO) -> None:
            file.write(b"some")
            raise OSError(errno.ENOSPC, "no space left on device")

    repository = FakeRepository()
    artifacts = FullDisk(tmp_path, 20_000, repository.download, fetched=lambda: None)
    await artifacts.start()

    with pytest.raises(Overloaded, match="disk is full"):
        async with artifacts.open(version(repository, 1)):
            pass

    assert names(tmp_path) == set()


async def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ("a" * 64 + ".partial")).write_bytes(b"half")

    await cache(tmp_path, FakeRepository())

    assert names(tmp_path) == set()


async def test_a_smaller_bound_after_a_restart_is_kept(tmp_path: Path) -> None:
    repository = FakeRepository()
    artifacts = await cache(tmp_path, repository)
    for number in (1, 2, 3):
        async with artifacts.open(version(repository, number)):
            pass

    await cache(tmp_path, repository, capacity=11_000)

    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63])
async def test_a_digest_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    repository = FakeRepository()
    wanted = version(repository, 1)
    wanted.sha256 = digest
    artifacts = await cache(tmp_path, repository)

    with pytest.raises(Corrupt):
        async with artifacts.open(wanted):
            pass
    assert repository.downloads == []
