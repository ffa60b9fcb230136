"""Turns artifacts into models: finds the format, chooses the device, warms the model up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.runtime.formats.port import FormatSettings, LoadedModel, ModelFormat
from services.runtime.formats.registry import Formats, load_formats
from services.runtime.models.warmup import warm_up
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import RequirementUnmet, ServiceError


class ModelLoader:
    """Loads models with the formats that `start` finds."""

    def __init__(
        self,
        settings: FormatSettings,
        *,
        device: str,
        allow_unsafe: bool,
        log: Any,
        loaded: Callable[[], None],
    ) -> None:
        """Puts models that require no device on `device`; calls `loaded` after each load, in the
        loading thread.
        """
        self._settings = settings
        self._device = device
        self._allow_unsafe = allow_unsafe
        self._log = log
        self._loaded = loaded
        self._formats: Formats | None = None
        self._ready = asyncio.Event()

    @property
    def problem(self) -> str:
        """The reason why no model can be loaded yet; "" once one can."""
        return "" if self._formats is not None else "model formats are being found"

    async def start(self) -> None:
        """Finds the formats in a thread, because plug-ins may take seconds to import."""
        self._formats = await asyncio.to_thread(
            load_formats, self._settings, allow_unsafe=self._allow_unsafe, log=self._log
        )
        self._ready.set()
        self._log.info("formats_ready", formats=[item.name for item in self._formats.usable])

    async def formats(self) -> list[ModelFormat]:
        """Returns the formats that this runtime loads, once they are known."""
        await self._ready.wait()
        assert self._formats is not None
        return self._formats.usable

    async def check(self, version: repository_pb2.ModelVersion) -> None:
        """Raises UnsafeFormat or RequirementUnmet if the version's format cannot be loaded here."""
        await self._ready.wait()
        assert self._formats is not None
        self._formats.find(version.format)

    def prepare(self, version: repository_pb2.ModelVersion) -> None:
        """Imports the libraries that the version needs. For a loading thread; raises as `check`."""
        if self._formats is None:
            raise RequirementUnmet("the runtime is still looking for its model formats")
        self._formats.find(version.format).prepare()

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel:
        """Returns the artifact's model after its warm-up calls. For a loading thread.

        Raises ModelFailed if a warm-up call fails, and what the format raises.
        """
        if self._formats is None:
            raise RequirementUnmet("the runtime is still looking for its model formats")
        item = self._formats.find(version.format)
        try:
            model = item.load(path, version, device_for(version, self._device))
        except ServiceError:
            raise
        except Exception as exc:
            # The caller learns the exception's class; whoever wrote the format needs the traceback.
            self._log.warning("model_not_loaded", model_version=version.name, exc_info=exc)
            raise
        self._loaded()
        try:
            calls = warm_up(model, version, invent=not item.runs_code, log=self._log)
        except BaseException:
            model.close()
            raise
        self._log.debug("model_warmed_up", model_version=version.name, calls=calls)
        return model


def device_for(version: repository_pb2.ModelVersion, preferred: str) -> str:
    """Returns an accelerator if the version requires one, else the operator's preferred device."""
    requires = version.requires
    if not requires.accelerator_count and not requires.accelerator_kind:
        return preferred
    if preferred.startswith("cuda"):
        return preferred
    return requires.accelerator_kind or "cuda"
