"""The threads in which models come and go, beside those that call them: nobody's call waits for a
load.

Loads queue by size, so a small model does not wait for a large one. Libraries are imported one at a
time.
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

# Artifacts up to this size are small: they load in a fraction of a second, whatever the format.
SMALL_BYTES = 32 * 1024 * 1024

_log = structlog.get_logger("models")


class Loader(Protocol):
    """What makes models of artifacts, in a worker thread."""

    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...
    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel: ...


class ModelThreads:
    """One thread that loads small models, one for the others, and one that lets models go."""

    def __init__(self, loader: Loader, imported: Callable[[], None] = lambda: None) -> None:
        """`imported` is told when a format's libraries were imported while there was no model in
        memory.
        """
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
        """The model and its footprint in bytes. Raises ModelFailed, Overloaded, and what the loader
        raises.
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
        """Closes the model, which nobody uses any more; returns when its memory is the system's
        again.
        """
        expected = memory_bytes if model.device == "cpu" else 0
        await asyncio.get_running_loop().run_in_executor(
            self._leaving, self._release, model.close, expected
        )
        self._models -= 1

    def close(self) -> None:
        """Takes no more work; what is under way ends by itself."""
        for pool in (self._small, self._large, self._leaving):
            pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, path: Path, version: repository_pb2.ModelVersion) -> tuple[LoadedModel, int]:
        with self._importing:
            self._loader.prepare(version)
            if version.format not in self._formats:
                self._formats.add(version.format)
                if self._models == 1:  # the one that is about to be loaded
                    self._imported()
        model, grown = self._meter.measure(lambda: self._loader.load(path, version))
        # Estimates forget what libraries add, and growth is hidden by memory that was free before:
        # the larger counts.
        return model, max(model.memory_bytes, grown if grown is not None else version.size_bytes, 1)

    def _release(self, close: Callable[[], None], expected: int) -> None:
        try:
            self._meter.measure(lambda: release(close, expected))
        except Exception:  # a foreign format's fault; the model is gone from the books all the same
            _log.exception("model_not_closed")
