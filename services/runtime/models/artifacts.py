"""Caches artifacts on this machine's disk by digest: fetches each once, checks it, bounds their sum
and finds them again after a restart.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from services.chassis.single_flight import SingleFlight
from services.runtime.models.cache import LruBytes, NoRoom
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt, Overloaded

# Yields the bytes of the version with this resource name.
Download = Callable[[str], AsyncIterator[bytes]]
# Runtimes that may share a cache directory; far more than one machine runs.
_MOST_FOLDERS = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial"
_READ_BYTES = 1024 * 1024


class FolderClaim:
    """The first numbered folder below a cache directory that no living process claims.

    A restarted runtime finds its artifacts again, while several may share the directory. The kernel
    releases the claim however the process ends.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(_MOST_FOLDERS):
            lock = (root / f"{number}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self._lock: TextIO = lock
            self.path = root / str(number)
            return
        raise OSError(f"all {_MOST_FOLDERS} folders below {root} are in use")

    async def release(self) -> None:
        """Leaves the folder to another process."""
        self._lock.close()


class ArtifactCache:
    """A folder of artifacts named by their SHA-256, to which only this process writes."""

    def __init__(
        self, folder: Path, capacity: int, download: Download, *, fetched: Callable[[], None]
    ) -> None:
        """Keeps at most `capacity` bytes; calls `fetched` after each download."""
        self._folder = folder
        self._download = download
        self._fetched = fetched
        self._kept: LruBytes[str] = LruBytes(capacity)
        self._flights: SingleFlight[str, None] = SingleFlight()
        self._verified: set[str] = set()

    async def start(self) -> None:
        """Takes over the artifacts of an earlier process, oldest first; removes partial files."""
        for digest, size in await asyncio.to_thread(self._scan):
            try:
                for gone in self._kept.add(digest, size):
                    self._delete(gone)
            except NoRoom:
                self._delete(digest)
                continue
            self._kept.release(digest)

    async def close(self) -> None:
        """Cancels the downloads under way, which remove their partial files."""
        await self._flights.close()

    @asynccontextmanager
    async def open(self, version: repository_pb2.ModelVersion) -> AsyncIterator[Path]:
        """Yields the path of the version's artifact, which stays there until the block ends.

        Raises Corrupt if the repository sends bytes of another digest, Overloaded if the disk has
        no room for them, and what the download raises.
        """
        digest = version.sha256
        if not _DIGEST.fullmatch(digest):
            raise Corrupt(
                "the version has no SHA-256; store the model again", model_version=version.name
            )
        # Another version may push the file out again before this one leases it.
        while not (digest in self._verified and self._kept.lease(digest)):
            await self._flights.run(digest, lambda: self._provide(version))
        try:
            yield self._folder / digest
        finally:
            self._kept.release(digest)

    async def _provide(self, version: repository_pb2.ModelVersion) -> None:
        digest = version.sha256
        if digest in self._kept:
            if await asyncio.to_thread(_digest_of, self._folder / digest) == digest:
                self._verified.add(digest)
                return
            self._forget(digest)
        try:
            for gone in self._kept.add(digest, version.size_bytes):
                self._delete(gone)
        except NoRoom as exc:
            raise Overloaded(
                f"the artifact of {version.size_bytes} bytes does not fit beside what this"
                f" runtime's disk cache of {exc.capacity} bytes holds; raise"
                " STELLWERK_DISK_CACHE_BYTES or try again later",
                size_bytes=version.size_bytes,
                capacity_bytes=exc.capacity,
            ) from None
        try:
            await self._fetch(version)
        except BaseException:
            self._kept.remove(digest)
            raise
        self._verified.add(digest)
        self._kept.release(digest)
        self._fetched()

    async def _fetch(self, version: repository_pb2.ModelVersion) -> None:
        partial = self._folder / (version.sha256 + _PARTIAL)
        try:
            with await asyncio.to_thread(partial.open, "wb") as file:
                await self._receive(version, file)
            await asyncio.to_thread(os.replace, partial, self._folder / version.sha256)
        except OSError as exc:
            partial.unlink(missing_ok=True)
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Overloaded(
                    "the runtime's disk is full; free some space there or try again later"
                ) from exc
            raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    async def _receive(self, version: repository_pb2.ModelVersion, file: BinaryIO) -> None:
        digest, received = hashlib.sha256(), 0

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async for chunk in self._download(version.name):
            received += len(chunk)
            if received > version.size_bytes:
                break
            await asyncio.to_thread(take, chunk)
        if received != version.size_bytes or digest.hexdigest() != version.sha256:
            raise Corrupt(
                "the artifact that the repository sent is not the one that was stored; store the"
                " model again",
                model_version=version.name,
                expected=version.sha256,
                got=digest.hexdigest(),
            )
        await asyncio.to_thread(_sync, file)

    def _scan(self) -> list[tuple[str, int]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in self._folder.iterdir():
            if _DIGEST.fullmatch(path.name):
                status = path.stat()
                found.append((status.st_mtime, path.name, status.st_size))
            elif path.name.endswith(_PARTIAL):
                path.unlink()
        return [(name, size) for _, name, size in sorted(found)]

    def _forget(self, digest: str) -> None:
        self._kept.remove(digest)
        self._delete(digest)

    def _delete(self, digest: str) -> None:
        self._verified.discard(digest)
        (self._folder / digest).unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
