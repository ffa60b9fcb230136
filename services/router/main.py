"""The router's composition root."""

from __future__ import annotations

from inference import grpc_service_pb2 as inference_messages
from inference import grpc_service_pb2_grpc as inference_stubs
from services.chassis.broker.hub import Hub
from services.chassis.broker.pull import PullServicer
from services.chassis.process import Process
from services.router.attachments import FleetServicer
from services.router.config import RouterSettings
from services.router.directory import ModelDirectory
from services.router.dispatch import Dispatcher
from services.router.fleet import Fleet
from services.router.inference import InferenceServicer
from services.router.pending import PendingTable
from services.router.predictions import Predictions
from services.router.servicer import RouterServicer
from services.router.serving import Serving
from services.wire import topology
from stellwerk.job.v1 import pull_service_pb2, pull_service_pb2_grpc
from stellwerk.router.v1 import fleet_service_pb2, fleet_service_pb2_grpc, router_service_pb2, router_service_pb2_grpc


def compose(settings: RouterSettings) -> Process:
    """Everything the router is made of."""
    process = Process("router", settings)
    hub = Hub() if settings.broker.get_secret_value() == "pull" else None
    broker = process.open_broker(hub=hub)
    pending = PendingTable()
    dispatcher = Dispatcher(broker, pending, process.instance, process.log)
    fleet = Fleet(settings.runtime_stale_seconds, settings.runtime_gone_seconds)
    serving = Serving(fleet, pending, settings.model_idle_seconds, dispatcher.idle)
    directory = ModelDirectory(process.channel("repository", settings.repository), settings.directory_seconds)
    predictions = Predictions(directory, serving, dispatcher, settings.max_input_bytes)

    router = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"]
    servicer = RouterServicer(predictions, serving, dispatcher, pending, broker)
    process.serve(router, router_service_pb2_grpc.add_RouterServiceServicer_to_server, servicer)
    fleet_descriptor = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
    attachments = FleetServicer(serving, process.instance, process.log)
    process.serve(fleet_descriptor, fleet_service_pb2_grpc.add_FleetServiceServicer_to_server, attachments)
    protocol = inference_messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    inference = InferenceServicer(predictions, serving, lambda: not process.readiness.reasons(), inference_messages)
    process.serve(protocol, inference_stubs.add_GRPCInferenceServiceServicer_to_server, inference)
    if hub is not None:
        pull, exchange = pull_service_pb2.DESCRIPTOR.services_by_name["PullService"], PullServicer(hub)
        process.serve(pull, pull_service_pb2_grpc.add_PullServiceServicer_to_server, exchange)
        process.on_drain(exchange.end_streams)

    async def subscribe() -> None:
        await broker.subscribe(topology.REPOSITORY_EVENTS, directory.on_event)
        broker.on_lost(lambda _: directory.clear())

    process.on_drain(serving.release)
    process.background("answers", dispatcher.listen)
    process.background("events", subscribe)
    process.background("fleet", serving.run)
    return process
