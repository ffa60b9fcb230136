"""A repository that a runtime can fetch from, in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import ServiceError, VersionNotFound


class FakeRepository:
    """Versions and artifacts by name. `gate`, once cleared, holds downloads back."""

    def __init__(self) -> None:
        self.versions: dict[str, repository_pb2.ModelVersion] = {}
        self.artifacts: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.failures: list[ServiceError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def add(
        self, version: repository_pb2.ModelVersion, artifact: bytes | Path
    ) -> repository_pb2.ModelVersion:
        """Stores a version; digest and size are filled in."""
        data = artifact.read_bytes() if isinstance(artifact, Path) else artifact
        version.sha256 = hashlib.sha256(data).hexdigest()
        version.size_bytes = len(data)
        self.versions[version.name] = version
        self.artifacts[version.name] = data
        return version

    async def version(self, name: str) -> repository_pb2.ModelVersion:
        if self.failures:
            raise self.failures.pop(0)
        if name not in self.versions:
            raise VersionNotFound("there is no such version", name=name)
        return self.versions[name]

    async def download(self, name: str) -> AsyncIterator[bytes]:
        self.downloads.append(name)
        await self.gate.wait()
        data = self.artifacts[name]
        piece = max(1000, len(data) // 100)
        for start in range(0, len(data), piece):
            yield data[start : start + piece]
