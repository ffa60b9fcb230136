"""Chooses the handler of each route."""

from __future__ import annotations

from collections.abc import Iterable

from services.api_gateway.generation.handlers import GenerationHandlers
from services.api_gateway.http.exchange import Handler
from services.api_gateway.open_inference.handlers import OpenInferenceHandlers
from services.api_gateway.open_inference.management_handlers import ManagementHandlers
from services.api_gateway.open_inference.metadata_cache import MetadataCache
from services.api_gateway.open_inference.skeletons import Skeletons
from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import Route
from services.api_gateway.transcoded import TranscodedHandler
from services.api_gateway.upstream.channels import Upstreams
from services.api_gateway.upstream.model_calls import ModelCalls
from stellwerk.wire.permissions import INFERENCE_SERVICE


def handlers_of(
    routes: Iterable[Route], upstreams: Upstreams, calls: ModelCalls, skeletons: Skeletons
) -> dict[Route, Handler]:
    """Returns the handler of each route: the protocol's own, or else the transcoded one."""
    metadata = MetadataCache(upstreams.unary)
    problem = upstreams.all[exposed_services.ROUTER].problem
    by_rpc = {
        **OpenInferenceHandlers(upstreams, problem, calls, metadata, skeletons).handlers(),
        **ManagementHandlers(upstreams).handlers(),
    }
    by_segment = GenerationHandlers(calls, metadata).handlers()
    transcoded = TranscodedHandler(upstreams)

    def handler_of(route: Route) -> Handler:
        if route.service != INFERENCE_SERVICE:
            return transcoded
        own = by_segment.get(route.template.segments[-1]) or by_rpc.get(route.rpc_name)
        return own or transcoded

    return {route: handler_of(route) for route in routes}
