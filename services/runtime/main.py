"""The composition root of the runtime."""

from __future__ import annotations

from services.chassis.broker.port import Broker
from services.chassis.lifecycle.process import Process
from services.runtime.agent import Agent, Surroundings
from services.runtime.config import RuntimeSettings
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.repository import Repository
from services.runtime.servicer import RuntimeServicer
from stellwerk.router.v1 import fleet_service_pb2_grpc as fleet_grpc
from stellwerk.runtime.v1 import runtime_service_pb2 as runtime_pb2
from stellwerk.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc


def compose(settings: RuntimeSettings) -> Process:
    """The process, ready to run."""
    process = Process("runtime", settings)
    assemble(process, settings, process.open_broker())
    return process


def assemble(process: Process, settings: RuntimeSettings, broker: Broker) -> Agent:
    """Puts the runtime into a process: its peers, the agent, its RPCs."""
    repository = Repository(process.channel("repository", settings.repository))
    fleet = fleet_grpc.FleetServiceStub(process.channel("router", settings.router))
    agent = Agent(
        settings,
        Surroundings(
            instance=process.instance,
            broker=broker,
            versions=repository,
            download=repository.download,
            open_stream=fleet.Attach,
            metrics=RuntimeMetrics(process.metrics),
            tracing=process.tracing,
            log=process.log,
        ),
    )
    process.resource("agent", agent.start, agent.stop)
    process.background("formats", agent.loader.start)
    process.background("cancellations", agent.listen)
    process.background("attach", agent.attachment.run)
    process.depends_on("formats", lambda: agent.loader.problem)
    process.depends_on("router", lambda: agent.attachment.problem)
    process.on_drain(agent.drain)
    process.serve(
        runtime_pb2.DESCRIPTOR.services_by_name["RuntimeService"],
        runtime_grpc.add_RuntimeServiceServicer_to_server,
        RuntimeServicer(agent.describe, agent.cache),
    )
    return agent
