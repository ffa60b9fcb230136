"""Loads and frees models in threads of their own, so that no call waits for a load.

Loads queue by size, so that a small model does not wait for a large one. Libraries are imported one
at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import structlog

from services.runtime.formats.port import LoadedModel
from services.runtime.models.memory import Meter, release
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import ModelFailed, Overloaded, ServiceError

# Bytes of an artifact up to which it loads in the thread for small models: in a fraction of a
# second, whatever the format.
SMALL_BYTES = 32 * 1024 * 1024

_log = structlog.get_logger("models")


class Loader(Protocol):
    """The part of ModelLoader that is used here, in loading threads."""

    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...
    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel: ...


class ModelThreads:
    """A thread that loads small models, one that loads large ones, and one that frees models."""

    def __init__(self, loader: Loader, imported: Callable[[], None] = lambda: None) -> None:
        """Calls `imported` after a format's first import of libraries, if no model is in memory."""
        self._loader = loader
        self._imported = imported
        self._formats: set[str] = set()
        self._models = 0
        self._meter = Meter()
        self._importing = threading.Lock()
        self._small = ThreadPoolExecutor(1, thread_name_prefix="load-small")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._leaving = ThreadPoolExecutor(1, thread_name_prefix="let-go")

    async def load(
        self, path: Path, version: repository_pb2.ModelVersion
    ) -> tuple[LoadedModel, int]:
        """Returns the model and its footprint in bytes.

        Raises Overloaded for a MemoryError, ModelFailed for other exceptions, and the loader's
        ServiceErrors as they are.
        """
        pool = self._small if version.size_bytes <= SMALL_BYTES else self._large
        self._models += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._load, path, version)
        except BaseException as exc:
            self._models -= 1
            if isinstance(exc, ServiceError) or not isinstance(exc, Exception):
                raise
            if isinstance(exc, MemoryError):
                raise Overloaded("the runtime has not enough memory to load the model") from exc
            kind = type(exc).__name__
            raise ModelFailed(
                f"the model could not be loaded; loading raised {kind}", exception=kind
            ) from exc

    async def let_go(self, model: LoadedModel, memory_bytes: int) -> None:
        """Closes a model without leases and returns when its memory is back with the system."""
        expected = memory_bytes if model.device == "cpu" else 0
        await asyncio.get_running_loop().run_in_executor(
            self._leaving, self._release, model.close, expected
        )
        self._models -= 1

    def close(self) -> None:
        """Takes no more loads; loads that run end by themselves."""
        for pool in (self._small, self._large, self._leaving):
            pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, path: Path, version: repository_pb2.ModelVersion) -> tuple[LoadedModel, int]:
        with self._importing:
            self._loader.prepare(version)
            if version.format not in self._formats:
                self._formats.add(version.format)
                # The only model is the one about to be loaded: memory holds libraries and no model.
                if self._models == 1:
                    self._imported()
        model, grown = self._meter.measure(lambda: self._loader.load(path, version))
        # The larger one counts: estimates omit what libraries add, and growth omits memory that was
        # free before.
        return model, max(model.memory_bytes, grown if grown is not None else version.size_bytes, 1)

    def _release(self, close: Callable[[], None], expected: int) -> None:
        try:
            self._meter.measure(lambda: release(close, expected))
        except Exception:
            # A plug-in's fault. Nothing refers to the model any more, so its memory will go later.
            _log.exception("model_not_closed")
