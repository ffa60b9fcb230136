"""The gateway's composition root."""

from __future__ import annotations

from services.api_gateway.config import GatewaySettings
from services.api_gateway.grpc_door import door as grpc_door
from services.api_gateway.grpc_door.door import GrpcDoor
from services.api_gateway.grpc_door.inference import GrpcInference
from services.api_gateway.http.access_log import HttpJournal
from services.api_gateway.http.door import Doorkeeper, HttpDoor
from services.api_gateway.http.exchange import Limits
from services.api_gateway.http.server import HttpServer
from services.api_gateway.routing import exposed_services as public
from services.api_gateway.servicer import GatewayServicer
from services.api_gateway.site import site_of
from services.api_gateway.upstream.api_keys import Credentials, issuer
from services.api_gateway.upstream.call_stream import open_exchange
from services.api_gateway.upstream.channels import Upstreams, loopback
from services.api_gateway.upstream.model_calls import Calls
from services.chassis.lifecycle.process import Process
from stellwerk.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server


def compose(settings: GatewaySettings) -> Process:
    """Everything the gateway is made of."""
    process = Process("api_gateway", settings, public=True)
    open_doors(process, settings)
    return process


def open_doors(process: Process, settings: GatewaySettings) -> HttpServer:
    """Puts both doors into the process; returns the HTTP one."""
    upstreams = Upstreams(public.addresses(settings), process.raw_channel)
    # Calls go over streams of this process' own; each carries its caller's token within.
    calls = Calls(open_exchange(process.channel(public.ROUTER, settings.router)))
    process.background("calls", calls.run)
    issue = issuer(process.channel(public.CONTROLPLANE, settings.controlplane))
    credentials = Credentials(issue, settings.credential_cache_size)
    site = site_of(settings, upstreams, calls)
    process.exchange_credentials(credentials.token)
    inference = GrpcInference(calls, settings.max_deadline_seconds)
    process.serve_passing(GrpcDoor(upstreams, inference), grpc_door.rules())
    if settings.reflection:
        process.serve_passing(*grpc_door.reflection_handler())
    servicer = GatewayServicer(site.table.routes, upstreams)
    process.serve(public.GATEWAY_SERVICE, add_GatewayServiceServicer_to_server, servicer)

    keeper = Doorkeeper(credentials.token, process.verifier.verify)
    journal = HttpJournal(process.metrics, process.log, process.journal.note, process.tracing)
    http = HttpServer(HttpDoor(site, keeper, Limits.of(settings), journal, process.log), settings)

    async def start() -> None:
        # This process' own API is called like all others, over gRPC, so that its guard decides
        # there too.
        upstreams.add(public.GATEWAY, loopback(settings.listen, process.bound_port))
        await http.start()
        process.log.info("http_started", port=http.port)

    process.resource("http_journal", None, journal.close)
    process.resource("http", start, http.stop)
    process.on_drain(http.stop)
    return http
