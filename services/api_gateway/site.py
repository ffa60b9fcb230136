"""What there is behind the HTTP door: routes and their handlers, and documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.exchange import Handler
from services.api_gateway.http.response import Answer
from services.api_gateway.open_inference.handlers import Inference
from services.api_gateway.open_inference.infer_handlers import Caller
from services.api_gateway.openapi import documents
from services.api_gateway.routing import exposed_services as public
from services.api_gateway.routing.routes import RouteTable, routes_of
from services.api_gateway.transcoded import Rest
from services.api_gateway.upstream.channels import Upstreams


@dataclass(frozen=True, slots=True)
class Site:
    """What there is behind the door."""

    table: RouteTable
    # Handlers by full RPC method; `rest` serves all others.
    handlers: Mapping[str, Handler]
    rest: Handler
    # Documents by path, open to everyone.
    documents: Mapping[bytes, Answer]
    origins: frozenset[str] = frozenset()
    compress_from_bytes: int = 4096


def site_of(settings: GatewaySettings, upstreams: Upstreams, calls: Caller) -> Site:
    """The site of the platform's public services."""
    table = RouteTable(routes_of(public.SERVED_BY))
    return Site(
        table=table,
        handlers=Inference(upstreams, upstreams.all[public.ROUTER].problem, calls).handlers(),
        rest=Rest(upstreams),
        documents=documents.of(table.routes),
        origins=settings.origins,
        compress_from_bytes=settings.compress_from_bytes,
    )
