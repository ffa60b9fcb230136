"""The gateway's composition root."""

from __future__ import annotations

from services.api_gateway import grpc_door, public
from services.api_gateway.app import Doorkeeper, HttpDoor
from services.api_gateway.config import GatewaySettings
from services.api_gateway.credentials import Credentials, issuer
from services.api_gateway.http_server import HttpServer
from services.api_gateway.journal import HttpJournal
from services.api_gateway.servicer import GatewayServicer
from services.api_gateway.site import Site, site_of
from services.api_gateway.upstreams import Upstreams, loopback
from services.api_gateway.visit import Limits
from services.chassis.process import Process
from stellwerk.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server


def compose(settings: GatewaySettings) -> Process:
    """Everything the gateway is made of."""
    process = Process("api_gateway", settings, public=True)
    open_doors(process, settings)
    return process


def open_doors(process: Process, settings: GatewaySettings) -> HttpServer:
    """Puts both doors into the process; returns the HTTP one."""
    addresses = {
        public.ROUTER: settings.router,
        public.REPOSITORY: settings.repository,
        public.CONTROLPLANE: settings.controlplane,
    }
    upstreams = Upstreams(addresses, process.raw_channel)
    issue = issuer(process.channel(public.CONTROLPLANE, settings.controlplane))
    credentials = Credentials(issue, settings.credential_cache_size)
    site = site_of(settings, upstreams)
    process.exchange_credentials(credentials.token)
    _grpc(process, settings, site, upstreams)

    keeper = Doorkeeper(credentials.token, process.verifier.verify)
    journal = HttpJournal(process.metrics, process.log, process.journal.note, process.tracing)
    http = HttpServer(HttpDoor(site, keeper, Limits.of(settings), journal, process.log), settings)

    async def start() -> None:
        # This process' own API is called like all others, over gRPC, so that its guard decides there too.
        upstreams.add(public.GATEWAY, loopback(settings.listen, process.bound_port))
        await http.start()
        process.log.info("http_started", port=http.port)

    process.resource("http", start, http.stop)
    process.on_drain(http.stop)
    return http


def _grpc(process: Process, settings: GatewaySettings, site: Site, upstreams: Upstreams) -> None:
    process.serve_passing(grpc_door.GrpcDoor(upstreams), grpc_door.rules())
    if settings.reflection:
        process.serve_passing(*grpc_door.reflection_handler())
    servicer = GatewayServicer(site.table.routes, upstreams)
    process.serve(public.GATEWAY_SERVICE, add_GatewayServiceServicer_to_server, servicer)
