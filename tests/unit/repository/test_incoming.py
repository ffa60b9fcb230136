"""What an upload holds once it has ended."""

from __future__ import annotations

import asyncio
import gc
import pickle
import weakref
from collections.abc import AsyncIterator
from typing import Any

from prometheus_client import CollectorRegistry

from services.repository.artifacts.incoming import receive_artifact
from services.repository.config import RepositorySettings
from services.repository.metrics import RepositoryMetrics
from stellwerk.repository.v1 import repository_service_pb2 as pb


class Discarding:
    """A writer that keeps nothing."""

    async def write(self, chunk: bytes) -> None:
        """Takes it."""

    async def flush(self) -> None:
        """Has nothing to do."""


async def test_an_upload_that_is_cancelled_is_freed_at_once() -> None:
    arrived = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield pickle.dumps(bytes(1 << 20))
        arrived.set()
        await asyncio.Event().wait()

    writer: Any = Discarding()
    freed = weakref.ref(writer)
    limits = RepositorySettings.model_construct(max_artifact_bytes=1 << 30, upload_idle_seconds=60)
    metrics = RepositoryMetrics(CollectorRegistry())
    gc.collect()
    gc.disable()
    try:
        receiving = asyncio.create_task(
            receive_artifact(pieces(), pb.ModelVersion(format="pickle"), writer, limits, metrics)
        )
        del writer
        await arrived.wait()
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()

        del receiving

        assert freed() is None
    finally:
        gc.enable()
