"""The RPCs that the router serves, each bound to the use case behind it."""

from __future__ import annotations

from dataclasses import dataclass

from services.chassis.broker.port import Broker
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.servicer import PullServicer
from services.chassis.lifecycle.process import Process
from services.router.calls.call_log import CallJournal
from services.router.calls.exchange_servicer import CallServicer
from services.router.calls.exchange_servicer import add_to_server as add_calls_to_server
from services.router.calls.invocations import Predictions
from services.router.dispatch.dispatcher import Dispatcher
from services.router.fleet.reconciler import Serving
from services.router.fleet.servicer import FleetServicer
from services.router.open_inference.log_settings import LogSettings
from services.router.open_inference.management import Tools
from services.router.open_inference.servicer import InferenceServicer
from services.router.queueing.pending_requests import PendingTable
from services.router.servicer import RouterServicer
from stellwerk.inference.v2 import grpc_service_pb2 as inference_messages
from stellwerk.inference.v2 import grpc_service_pb2_grpc as inference_stubs
from stellwerk.job.v1 import pull_service_pb2, pull_service_pb2_grpc
from stellwerk.router.v1 import (
    call_service_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the RPCs work with."""

    predictions: Predictions
    serving: Serving
    dispatcher: Dispatcher
    pending: PendingTable
    broker: Broker


def bind(process: Process, parts: Parts) -> None:
    """Has the process serve predictions, the fleet's streams, the gateways' streams and the
    inference protocol.
    """
    router = RouterServicer(
        parts.predictions, parts.serving, parts.dispatcher, parts.pending, parts.broker
    )
    process.serve(
        router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
        router_service_pb2_grpc.add_RouterServiceServicer_to_server,
        router,
    )
    process.serve(
        fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"],
        fleet_service_pb2_grpc.add_FleetServiceServicer_to_server,
        FleetServicer(parts.serving, process.instance, process.log),
    )
    statistics = parts.predictions.statistics
    journal = CallJournal(
        process.call_metrics, statistics, process.tracing, process.audit_trail.note, process.log
    )
    calls = CallServicer(parts.predictions, process.verifier, journal, process.log)
    process.on_drain(calls.drain)
    process.serve(
        call_service_pb2.DESCRIPTOR.services_by_name["CallService"],
        add_calls_to_server,
        calls,
    )
    tools = Tools(
        statistics, process.tracing, LogSettings(process.log_levels, process.settings.log_format)
    )
    process.serve(
        inference_messages.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        inference_stubs.add_GRPCInferenceServiceServicer_to_server,
        InferenceServicer(
            parts.predictions,
            parts.serving,
            lambda: not process.readiness.reasons(),
            inference_messages,
            tools,
        ),
    )


def bind_hub(process: Process, hub: Hub) -> None:
    """Has the process serve the embedded broker."""
    exchange = PullServicer(hub)
    process.serve(
        pull_service_pb2.DESCRIPTOR.services_by_name["PullService"],
        pull_service_pb2_grpc.add_PullServiceServicer_to_server,
        exchange,
    )
    process.on_drain(exchange.end_streams)
