"""Serves GatewayService: a gateway's routes and the services behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from services.api_gateway.routing.routes import Route
from services.api_gateway.upstream.channels import Upstream, Upstreams
from stellwerk.gateway.v1 import gateway_service_pb2 as messages


class GatewayServicer:
    """Lists the routes and upstreams of this gateway."""

    def __init__(self, routes: Iterable[Route], upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._routes = [
            messages.Route(
                http_method=route.method,
                template=route.template.text,
                rpc=route.rpc_name,
                permission=route.rule.permission,
            )
            for route in routes
        ]

    async def ListRoutes(
        self, request: messages.ListRoutesRequest, _: Any
    ) -> messages.ListRoutesResponse:
        """Returns every HTTP route with its RPC and permission."""
        return messages.ListRoutesResponse(routes=self._routes)

    async def ListUpstreams(
        self, request: messages.ListUpstreamsRequest, _: Any
    ) -> messages.ListUpstreamsResponse:
        """Returns every service behind the gateway, asked now whether it serves."""
        upstreams = sorted(self._upstreams.all.values(), key=lambda upstream: upstream.name)
        return messages.ListUpstreamsResponse(
            upstreams=await asyncio.gather(*map(_described, upstreams))
        )


async def _described(upstream: Upstream) -> messages.Upstream:
    problem = await upstream.problem()
    return messages.Upstream(
        service=upstream.name, address=upstream.address, serving=not problem, reason=problem
    )
