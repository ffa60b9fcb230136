"""The gateway's composition root."""

from __future__ import annotations

from services.api_gateway.config import GatewaySettings
from services.api_gateway.grpc_door import door as grpc_door
from services.api_gateway.grpc_door.inference import GrpcInference
from services.api_gateway.handlers import handlers_of
from services.api_gateway.http.access_log import AccessLog
from services.api_gateway.http.door import HttpDoor
from services.api_gateway.http.server import HttpServer
from services.api_gateway.http.status import status_body
from services.api_gateway.open_inference.fast_infer import FastInfer
from services.api_gateway.open_inference.infer_response import write_error
from services.api_gateway.open_inference.skeletons import Skeletons
from services.api_gateway.openapi.documents import documents_of
from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import RouteTable, routes_of
from services.api_gateway.servicer import GatewayServicer
from services.api_gateway.upstream.api_keys import ApiKeyExchange, issuer
from services.api_gateway.upstream.call_stream import open_exchange
from services.api_gateway.upstream.channels import Upstreams, loopback
from services.api_gateway.upstream.model_calls import ModelCalls
from services.chassis.access.token_verifier import Authenticator
from services.chassis.lifecycle.process import Process
from stellwerk.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server
from stellwerk.wire.errors import ServiceError


def compose(settings: GatewaySettings) -> Process:
    """Returns the gateway's process."""
    process = Process("api_gateway", settings, public=True)
    open_doors(process, settings)
    return process


def open_doors(process: Process, settings: GatewaySettings) -> HttpServer:
    """Puts the gRPC and the HTTP door into the process; returns the HTTP server."""
    upstreams = Upstreams(exposed_services.addresses(settings), process.raw_channel)
    router = process.channel(exposed_services.ROUTER, settings.router)
    # The streams are this process' own; each call on them carries its caller's token.
    calls = ModelCalls(open_exchange(router), process.metrics)
    process.background("calls", calls.run)
    issue = issuer(process.channel(exposed_services.CONTROLPLANE, settings.controlplane))
    keys = ApiKeyExchange(issue, settings.credential_cache_size)
    table = RouteTable(routes_of(exposed_services.SERVED_BY))

    process.exchange_credentials(keys.token)
    inference = GrpcInference(calls, settings.max_deadline_seconds)
    process.serve_passing(grpc_door.GrpcDoor(upstreams, inference), grpc_door.rules())
    if settings.reflection:
        process.serve_passing(*grpc_door.reflection_handler())
    servicer = GatewayServicer(table.routes, upstreams)
    process.serve(exposed_services.GATEWAY_SERVICE, add_GatewayServiceServicer_to_server, servicer)

    http = _http_server(process, settings, table, upstreams, calls, keys)

    async def start() -> None:
        # The gateway's own RPCs are called over gRPC like all others, so that its guard decides.
        upstreams.add(exposed_services.GATEWAY, loopback(settings.listen, process.bound_port))
        await http.start()
        process.log.info("http_started", port=http.port)

    process.resource("http", start, http.stop)
    process.on_drain(http.stop)
    return http


def _http_server(
    process: Process,
    settings: GatewaySettings,
    table: RouteTable,
    upstreams: Upstreams,
    calls: ModelCalls,
    keys: ApiKeyExchange,
) -> HttpServer:
    skeletons = Skeletons(calls.forms, process.metrics)
    access_log = AccessLog(process.metrics, process.log, process.audit_trail.note, process.tracing)
    process.resource("access_log", None, access_log.close)
    door = HttpDoor(
        table=table,
        handlers=handlers_of(table.routes, upstreams, calls, skeletons),
        documents=documents_of(table.routes),
        authenticate=Authenticator(process.verifier, keys.token).authenticate,
        write_error=_write_error,
        begin_span=process.tracing.begin if process.tracing.exports else None,
        access_log=access_log,
        settings=settings,
        log=process.log,
    )
    fast = FastInfer(
        table=table,
        verifier=process.verifier,
        token_of=keys.known,
        skeletons=skeletons,
        stream=calls.small,
        finish=door.finish,
        settings=settings,
        log=process.log,
    )
    # A span is the parent of what its task does, and the fast way has no task.
    traced = process.tracing.exports
    return HttpServer(door, settings, process.metrics, fast=None if traced else fast)


def _write_error(raw_path: bytes, error: ServiceError) -> bytes:
    """Returns an error's body: under /v2 the protocol's, elsewhere google.rpc.Status."""
    if raw_path.startswith(b"/v2/") or raw_path == b"/v2":
        return write_error(error)
    return status_body(error)
