"""Describes the runtime to routers and to callers of DescribeRuntime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from services.runtime.config import RuntimeSettings, parse_labels
from services.runtime.fleet import inventory
from services.runtime.formats.port import ModelFormat
from stellwerk.router.v1 import fleet_service_pb2 as fleet_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2


class FormatSource(Protocol):
    """The part of ModelLoader that is used here."""

    async def formats(self) -> list[ModelFormat]: ...


class ServedModels(Protocol):
    """The part of ServingTable that is used here."""

    @property
    def draining(self) -> bool: ...
    def models(self) -> list[router_pb2.ServedModel]: ...


class RuntimeDescription:
    """Everything that the fleet may know of one runtime."""

    def __init__(
        self,
        settings: RuntimeSettings,
        instance: str,
        slots: int,
        loader: FormatSource,
        serving: ServedModels,
        in_flight: Callable[[], int],
    ) -> None:
        """Takes the calls at a time as `slots`; `in_flight` returns the unanswered items."""
        self._loader = loader
        self._serving = serving
        self._in_flight = in_flight
        self._hardware = router_pb2.Runtime(
            name=settings.resource_name,
            instance=instance,
            cpu_cores=inventory.cpu_cores(),
            memory_bytes=inventory.memory_bytes(),
            labels=parse_labels(settings.labels),
            slots=slots,
        )
        # Formats, frameworks and accelerators, once they are known.
        self._software: router_pb2.Runtime | None = None

    async def describe(self) -> router_pb2.Runtime:
        """Returns what the runtime has and does; waits until its formats are known."""
        if self._software is None:
            formats = await self._loader.formats()
            # In a thread, because asking for CUDA devices may import torch, which takes seconds.
            self._software = await asyncio.to_thread(_software, formats)
        report = self.report()
        runtime = router_pb2.Runtime(
            models=report.models, in_flight=report.in_flight, draining=report.draining
        )
        runtime.MergeFrom(self._hardware)
        runtime.MergeFrom(self._software)
        return runtime

    def report(self) -> fleet_pb2.Report:
        """Returns what the runtime does now."""
        return fleet_pb2.Report(
            models=self._serving.models(),
            in_flight=self._in_flight(),
            draining=self._serving.draining,
        )


def _software(formats: list[ModelFormat]) -> router_pb2.Runtime:
    return router_pb2.Runtime(
        accelerators=inventory.accelerators(formats),
        frameworks=inventory.frameworks(formats),
        formats=[item.name for item in formats],
    )
