"""The gateway's composition root."""

from __future__ import annotations

from services.api_gateway import documents, grpc_door, public
from services.api_gateway.app import Doorkeeper, HttpDoor, Site
from services.api_gateway.config import GatewaySettings
from services.api_gateway.credentials import Credentials
from services.api_gateway.http_server import HttpServer
from services.api_gateway.inference import Inference
from services.api_gateway.issuing import issuer
from services.api_gateway.journal import HttpJournal
from services.api_gateway.rest import Rest
from services.api_gateway.routes import RouteTable, routes_of
from services.api_gateway.servicer import GatewayServicer
from services.api_gateway.upstreams import Upstreams, loopback
from services.api_gateway.visit import Limits
from services.chassis.process import Process
from stellwerk.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server


def compose(settings: GatewaySettings) -> Process:
    """Everything the gateway is made of."""
    process = Process("api_gateway", settings)
    table = RouteTable(routes_of(public.SERVED_BY))
    addresses = {
        public.ROUTER: settings.router,
        public.REPOSITORY: settings.repository,
        public.CONTROLPLANE: settings.controlplane,
    }
    upstreams = Upstreams(addresses, process.raw_channel)
    issue = issuer(process.channel("controlplane", settings.controlplane))
    credentials = Credentials(issue, settings.credential_cache_size)

    limits = Limits.of(settings)
    inference = Inference(upstreams, upstreams.all[public.ROUTER].problem)
    site = Site(
        table=table,
        handlers=inference.handlers(),
        rest=Rest(upstreams),
        documents=documents.of(table.routes),
        origins=settings.origins,
        compress_from_bytes=settings.compress_from_bytes,
    )
    journal = HttpJournal(process.metrics, process.log, process.journal.note)
    door = HttpDoor(site, Doorkeeper(credentials.token, process.verifier.verify), limits, journal, process.log)
    http = HttpServer(
        door, settings.http_listen, max_header_bytes=settings.max_header_bytes, drain_seconds=settings.drain_seconds
    )

    async def start() -> None:
        # This process' own API is called like all others, over gRPC, so that its guard decides there too.
        upstreams.add(public.GATEWAY, loopback(settings.listen, process.bound_port))
        await http.start()
        process.log.info("http_started", port=http.port)

    process.exchange_credentials(credentials.token)
    process.serve_passing(grpc_door.GrpcDoor(upstreams), grpc_door.rules())
    if settings.reflection:
        process.serve_passing(*grpc_door.reflection_handler())
    process.serve(
        public.GATEWAY_SERVICE, add_GatewayServiceServicer_to_server, GatewayServicer(table.routes, upstreams)
    )
    process.resource("http", start, http.stop)
    process.on_drain(http.stop)
    return process
