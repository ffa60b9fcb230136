"""Composes the router: everything it is made of, and the RPCs it serves."""

from __future__ import annotations

from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.servicer import PullServicer
from services.chassis.lifecycle.process import Process
from services.router.calls.call_log import CallLog
from services.router.calls.exchange_servicer import ExchangeServicer
from services.router.calls.exchange_servicer import add_to_server as add_exchange_to_server
from services.router.calls.invocations import Invocations
from services.router.calls.statistics import Statistics
from services.router.config import RouterSettings
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.metrics import DispatchMetrics
from services.router.fleet.reconciler import Reconciler
from services.router.fleet.registry import FleetRegistry
from services.router.fleet.servicer import FleetServicer
from services.router.naming.directory import ModelDirectory
from services.router.open_inference.log_settings import LogSettings
from services.router.open_inference.servicer import InferenceServicer
from services.router.queueing.admission import AdmissionLimits
from services.router.queueing.pending_requests import PendingRequests
from services.router.servicer import RouterServicer
from stellwerk.inference.v2 import grpc_service_pb2, grpc_service_pb2_grpc
from stellwerk.job.v1 import pull_service_pb2
from stellwerk.job.v1.pull_service_pb2_grpc import add_PullServiceServicer_to_server
from stellwerk.router.v1 import call_service_pb2, fleet_service_pb2, router_service_pb2
from stellwerk.router.v1.fleet_service_pb2_grpc import add_FleetServiceServicer_to_server
from stellwerk.router.v1.router_service_pb2_grpc import add_RouterServiceServicer_to_server
from stellwerk.wire import topology


def compose(settings: RouterSettings) -> Process:
    """Returns the router's process."""
    process = Process("router", settings)
    hub = Hub() if settings.broker.get_secret_value() == "pull" else None
    broker = process.open_broker(hub=hub)
    pending = PendingRequests()
    registry = FleetRegistry(settings.runtime_stale_seconds, settings.runtime_gone_seconds)
    dispatcher = Dispatcher(
        broker,
        pending,
        process.instance,
        process.log,
        slots=registry.slots.__getitem__,
        limits=AdmissionLimits.of(settings),
        metrics=DispatchMetrics(process.metrics),
    )
    reconciler = Reconciler(
        registry, pending, settings.model_idle_seconds, dispatcher.forget_if_idle
    )
    directory = ModelDirectory(
        process.channel("repository", settings.repository), settings.directory_seconds
    )
    statistics = Statistics()
    invocations = Invocations(
        directory, reconciler, dispatcher, statistics, settings.max_input_bytes
    )
    _serve_inference(process, settings, invocations, directory, reconciler, statistics)
    _serve_gateways(process, invocations, statistics)
    _serve_runtimes(process, reconciler, hub)
    servicer = RouterServicer(invocations, reconciler, dispatcher, pending, broker)
    service = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"]
    process.serve(service, add_RouterServiceServicer_to_server, servicer)

    async def subscribe() -> None:
        await broker.subscribe(topology.REPOSITORY_EVENTS, directory.on_event)
        broker.on_lost(lambda _: directory.clear())

    process.background("replies", dispatcher.listen)
    process.background("events", subscribe)
    return process


def _serve_inference(
    process: Process,
    settings: RouterSettings,
    invocations: Invocations,
    directory: ModelDirectory,
    reconciler: Reconciler,
    statistics: Statistics,
) -> None:
    servicer = InferenceServicer(
        invocations,
        directory,
        reconciler,
        statistics,
        process.tracing,
        LogSettings(process.log_levels, settings.log_format),
        lambda: not process.readiness.reasons(),
    )
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    add = grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    process.serve(service, add, servicer)


def _serve_gateways(process: Process, invocations: Invocations, statistics: Statistics) -> None:
    """Serves the streams that carry the calls of gateways' callers."""
    call_log = CallLog(
        process.call_metrics, statistics, process.tracing, process.audit_trail.note, process.log
    )
    exchange = ExchangeServicer(invocations, process.verifier, call_log, process.log)
    service = call_service_pb2.DESCRIPTOR.services_by_name["CallService"]
    process.serve(service, add_exchange_to_server, exchange)
    process.on_drain(exchange.drain)


def _serve_runtimes(process: Process, reconciler: Reconciler, hub: Hub | None) -> None:
    """Serves the streams of attached runtimes, and the embedded broker if there is one."""
    fleet = FleetServicer(reconciler, process.instance, process.log)
    service = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
    process.serve(service, add_FleetServiceServicer_to_server, fleet)
    process.on_drain(reconciler.release)
    process.background("fleet", reconciler.run)
    if hub is not None:
        pull = PullServicer(hub)
        service = pull_service_pb2.DESCRIPTOR.services_by_name["PullService"]
        process.serve(service, add_PullServiceServicer_to_server, pull)
        process.on_drain(pull.end_streams)
