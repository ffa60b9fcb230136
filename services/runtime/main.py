"""Composes the runtime: its models, the way of a request through it, and its place in the fleet."""

from __future__ import annotations

from services.chassis.broker.port import Broker
from services.chassis.lifecycle.process import Process
from services.runtime.batching.scheduler import Scheduler
from services.runtime.config import RuntimeSettings
from services.runtime.fleet import inventory
from services.runtime.fleet.attachment import Attachment
from services.runtime.fleet.description import RuntimeDescription
from services.runtime.fleet.serving_table import ServingTable
from services.runtime.formats.port import FormatSettings
from services.runtime.intake.consumer import WorkConsumer
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models import memory
from services.runtime.models.artifacts import ArtifactCache, FolderClaim
from services.runtime.models.cache import ModelCache
from services.runtime.models.loader import ModelLoader
from services.runtime.models.repository import Repository
from services.runtime.replies.responder import Responder
from services.runtime.replies.response_cache import ResponseCache
from services.runtime.replies.sender import ReplySender
from services.runtime.servicer import RuntimeServicer
from stellwerk.router.v1 import fleet_service_pb2_grpc as fleet_grpc
from stellwerk.runtime.v1 import runtime_service_pb2 as runtime_pb2
from stellwerk.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc

_SERVICE = runtime_pb2.DESCRIPTOR.services_by_name["RuntimeService"]


def compose(settings: RuntimeSettings) -> Process:
    """Returns the process, ready to run."""
    process = Process("runtime", settings)
    assemble(process, settings, process.open_broker())
    return process


def assemble(process: Process, settings: RuntimeSettings, broker: Broker) -> None:
    """Puts a runtime into a process."""
    log = process.log
    metrics = RuntimeMetrics(process.metrics)
    repository = Repository(process.channel("repository", settings.repository))
    responses = ResponseCache(settings.response_cache_bytes)
    replies = ReplySender(broker, max_message_bytes=settings.max_message_bytes, log=log)
    loader, cache, scheduler = _models(process, settings, repository, metrics)
    responder = Responder(
        settings.resource_name, replies, responses, metrics, tracing=process.tracing, log=log
    )
    consumer = WorkConsumer(broker, cache, scheduler, responder, log=log)
    serving = ServingTable(
        repository,
        loader.check,
        cache,
        consumer,
        changed=lambda: attachment.changed(),
        stopped=responses.discard,
        log=log,
    )
    description = RuntimeDescription(
        settings, process.instance, scheduler.slots, loader, serving, lambda: consumer.in_flight
    )
    router = fleet_grpc.FleetServiceStub(process.channel("router", settings.router))
    attachment = Attachment(router.Attach, description, serving, log=log)

    async def drain() -> None:
        # Deliveries stop first; the broker's connection lives until every reply is sent.
        await serving.drain()
        await consumer.idle()
        await replies.close()

    process.background("formats", loader.start)
    process.background("cancellations", consumer.listen)
    process.background("attach", attachment.run)
    process.depends_on("formats", lambda: loader.problem)
    process.depends_on("router", lambda: attachment.problem)
    process.on_drain(drain)
    servicer = RuntimeServicer(description.describe, cache)
    process.serve(_SERVICE, runtime_grpc.add_RuntimeServiceServicer_to_server, servicer)


def _models(
    process: Process, settings: RuntimeSettings, repository: Repository, metrics: RuntimeMetrics
) -> tuple[ModelLoader, ModelCache, Scheduler]:
    """Returns the parts that load, keep and call models; the process closes them in reverse."""
    cores = inventory.cpu_cores()
    slots = settings.slots or cores
    threads = max(1, cores // slots)
    scheduler = Scheduler(slots, max_batch_rows=settings.max_batch_rows, threads_per_call=threads)
    model_bytes = settings.memory_bytes or inventory.memory_bytes() // 2
    loader = ModelLoader(
        FormatSettings(threads, model_bytes, settings.allowed_torch_modules),
        device=settings.devices,
        allow_unsafe=settings.allow_unsafe_formats,
        log=process.log,
        loaded=scheduler.models_changed,
    )
    folder = FolderClaim(settings.cache_dir)
    fetched = metrics.artifact_fetches.inc
    artifacts = ArtifactCache(
        folder.path, settings.disk_cache_bytes, repository.download, fetched=fetched
    )
    cache = ModelCache(model_bytes, artifacts, loader, metrics, imported=memory.spare_libraries)
    process.resource("artifact_folder", None, folder.release)
    process.resource("artifacts", artifacts.start, artifacts.close)
    process.resource("models", None, cache.close)
    process.resource("calls", None, scheduler.close)
    return loader, cache, scheduler
