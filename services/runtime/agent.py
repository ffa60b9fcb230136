"""The runtime as one thing: what it is, how its parts hang together, and the order in which it
leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.chassis.broker.port import Broker
from services.chassis.telemetry import Tracing
from services.runtime.batching.scheduler import Executor
from services.runtime.config import RuntimeSettings, parse_labels, runtime_name
from services.runtime.fleet import inventory
from services.runtime.fleet.attachment import Attachment, Open
from services.runtime.fleet.serving_table import ServingTable, Versions
from services.runtime.formats.port import FormatSettings
from services.runtime.intake.consumer import WorkConsumer
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models import memory
from services.runtime.models.artifacts import ArtifactCache, Download
from services.runtime.models.cache import ModelCache
from services.runtime.models.cache_folder import FolderClaim
from services.runtime.models.loader import ModelLoader
from services.runtime.replies.response_cache import ResponseCache
from services.runtime.replies.sender import ReplySender
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.topology import WORK_CANCELLED


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent needs of the process it lives in."""

    instance: str
    broker: Broker
    versions: Versions
    download: Download
    open_stream: Open
    metrics: RuntimeMetrics
    tracing: Tracing
    log: Any


class Agent:
    """Attaches to a router, loads what it is told to, answers what its queues bring."""

    def __init__(self, settings: RuntimeSettings, around: Surroundings) -> None:
        self.name = f"runtimes/{runtime_name(settings)}"
        self._settings, self._around = settings, around
        self._cores, self._memory = inventory.cpu_cores(), inventory.memory_bytes()
        slots = settings.slots or self._cores
        threads = max(1, self._cores // slots)
        self._folder = FolderClaim(settings.cache_dir)
        self._executor = Executor(
            slots,
            max_batch_rows=settings.max_batch_rows,
            threads_per_call=threads,
            batched=around.metrics.batched,
        )
        for_models = settings.memory_bytes or self._memory // 2
        modules = tuple(part.strip() for part in settings.torch_modules.split(",") if part.strip())
        self.loader = ModelLoader(
            FormatSettings(
                threads=threads,
                memory_bytes=for_models,
                torch_modules=modules,
                device=settings.devices,
            ),
            allow_unsafe=settings.allow_unsafe_formats,
            log=around.log,
            loaded=self._executor.models_changed,
        )
        self._artifacts = ArtifactCache(
            self._folder.path,
            settings.disk_cache_bytes,
            around.download,
            fetched=around.metrics.artifact_fetches.inc,
        )
        self.cache = ModelCache(
            for_models,
            self._artifacts,
            self.loader,
            around.metrics,
            imported=memory.spare_libraries,
        )
        self._replies = ReplySender(
            around.broker, max_message_bytes=settings.max_message_bytes, log=around.log
        )
        responses = ResponseCache(settings.response_cache_bytes)
        self._consumer = WorkConsumer(
            name=self.name,
            broker=around.broker,
            cache=self.cache,
            executor=self._executor,
            replies=self._replies,
            metrics=around.metrics,
            tracing=around.tracing,
            log=around.log,
            responses=responses,
        )
        self.serving = ServingTable(
            versions=around.versions,
            check=self.loader.check,
            cache=self.cache,
            intake=self._consumer,
            changed=lambda: self.attachment.changed(),
            log=around.log,
            stopped=responses.discard,
        )
        self.attachment = Attachment(
            open_stream=around.open_stream,
            advertise=self.describe,
            serving=self.serving,
            in_flight=lambda: self._consumer.in_flight,
            log=around.log,
        )

    async def start(self) -> None:
        """Takes over the artifacts of an earlier process."""
        await self._artifacts.start()

    async def listen(self) -> None:
        """Hears from now on of work that nobody waits for any more. Raises BrokerDown."""
        await self._around.broker.subscribe(WORK_CANCELLED, self._consumer.cancel)

    async def describe(self) -> router_pb2.Runtime:
        """Everything the runtime has and does; waits until its formats are known."""
        formats = await self.loader.formats()
        report = self.attachment.report()
        return router_pb2.Runtime(
            name=self.name,
            instance=self._around.instance,
            cpu_cores=self._cores,
            memory_bytes=self._memory,
            accelerators=inventory.accelerators(formats),
            frameworks=inventory.frameworks(formats),
            labels=parse_labels(self._settings.labels),
            formats=[item.name for item in formats],
            slots=self._executor.slots,
            models=report.models,
            in_flight=report.in_flight,
            draining=report.draining,
        )

    async def drain(self) -> None:
        """Says so, takes no more deliveries, answers what is in hand, and sees the answers off."""
        await self.serving.drain()
        await self._consumer.idle()
        await self._replies.close()

    async def stop(self) -> None:
        """Lets everything go."""
        await self._executor.close()
        await self.cache.close()
        await self._artifacts.close()
        self._folder.release()
