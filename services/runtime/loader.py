"""Turns an artifact into a model in memory: which format, on which device. Formats are imported in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.runtime.formats.port import FormatSettings, LoadedModel, ModelFormat
from services.runtime.formats.registry import Formats, load_formats
from services.wire.errors import RequirementUnmet
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2


class ModelLoader:
    """Knows the formats once `start` has imported them, which takes seconds where torch is installed."""

    def __init__(self, settings: FormatSettings, *, allow_unsafe: bool, log: Any, loaded: Callable[[], None]) -> None:
        self._settings = settings
        self._allow_unsafe = allow_unsafe
        self._log = log
        self._loaded = loaded
        self._formats: Formats | None = None
        self._ready = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why nothing can be loaded yet; "" when it can."""
        return "" if self._formats is not None else "model formats are being imported"

    async def start(self) -> None:
        """Imports the formats, off the loop."""
        self._formats = await asyncio.to_thread(
            load_formats, self._settings, allow_unsafe=self._allow_unsafe, log=self._log
        )
        self._ready.set()
        self._log.info("formats_ready", formats=[item.name for item in self._formats.usable])

    async def formats(self) -> list[ModelFormat]:
        """The formats that this runtime loads; waits until they are known."""
        await self._ready.wait()
        assert self._formats is not None
        return self._formats.usable

    async def check(self, version: repository_pb2.ModelVersion) -> None:
        """Raises UnsafeFormat or RequirementUnmet if the version's format cannot be loaded here."""
        await self._ready.wait()
        assert self._formats is not None
        self._formats.find(version.format)

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel:
        """Loads the artifact; for a worker thread."""
        if self._formats is None:
            raise RequirementUnmet("the runtime is still importing its model formats")
        model = self._formats.find(version.format).load(path, version, device_for(version, self._settings.device))
        self._loaded()
        return model


def device_for(version: repository_pb2.ModelVersion, preferred: str) -> str:
    """The device: an accelerator if the version requires one, else what the operator prefers."""
    requires = version.requires
    if not requires.accelerator_count and not requires.accelerator_kind:
        return preferred
    if preferred.startswith("cuda"):
        return preferred
    return requires.accelerator_kind or "cuda"
